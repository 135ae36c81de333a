#include "gateway/endpoint/call.h"

#include "gateway/base/redact.h"
#include "gateway/endpoint/origin.h"

#include <errno.h>

#define TARGET      SLICE("/-/actor.json")
#define CREDENTIALS SLICE("Authorization")
#define HEAD_MAX    (256 * 1024)
#define ANSWER_MS   2000 /* for the whole answer; a silence may end it as much later */

static void count(struct call *call, const char *result)
{
	struct metrics_labels labels = {{metrics_value(METRIC_IDENTITY, 0, result)}};
	metrics_add(call->endpoint->options.metrics, METRIC_IDENTITY, labels, 1);
}

/* Also one that is mistyped: whoever means to use a token is never let in by something else. */
static bool has_own_token(const struct http_fields *fields)
{
	for (size_t i = 0; i < fields->count; i++)
		if (slice_equal_nocase(fields->at[i].name, CREDENTIALS) && redact_has_token(fields->at[i].value))
			return true;
	return false;
}

bool call_has_identity(const struct call *call, const struct http_head *head)
{
	bool credentials = http_fields_find(head->fields, CREDENTIALS) || http_fields_find(head->fields, SLICE("Cookie"));
	return call->endpoint->identity_rules.list && credentials && !has_own_token(head->fields);
}

int call_check_origin(struct call *call, const struct http_head *head)
{
	call->by_identity = true;
	if (http_fields_count(head->fields, CREDENTIALS) > 1) {
		call_refuse(call, exec_problem_invalid_authorization);
		return -EACCES;
	}
	if (origin_is_own(head, forward_client_of(head, &call->endpoint->options.forward).scheme))
		return 0;
	call_refuse(call, exec_problem_cross_origin);
	return -EACCES;
}

struct slice call_credentials(const struct call *call)
{
	bool own = call->by_identity && !http_fields_find(call->reply.head->fields, SLICE("X-Datasette-Authorization"));
	return own ? CREDENTIALS : SLICE("X-Datasette-Authorization");
}

/* --- what it means --------------------------------------------------------------------------------------------------------- */

static void conclude(struct call *call, const struct identity *identity)
{
	call->identity = identity->who;
	snprintf(call->kid, sizeof call->kid, "%s", identity->who.kid);
	snprintf(call->actor, sizeof call->actor, "%s", identity->who.actor);
	switch (identity->result) {
	case IDENTITY_KNOWN:
		call->inquiry.then(call);
		break;
	case IDENTITY_ANONYMOUS:
		call_refuse_caller(call, "anonymous", exec_problem_anonymous);
		break;
	case IDENTITY_INVALID:
		call_refuse_caller(call, "datasette", exec_problem_invalid_token);
		break;
	case IDENTITY_DENIED:
		call_refuse(call, exec_problem_identity_denied);
		break;
	case IDENTITY_FAILED:
		call_refuse(call, exec_problem_identity_unavailable);
		break;
	}
}

static void end_inquiry(struct call *call)
{
	struct inquiry *inquiry = &call->inquiry;
	exchange_cancel(TAKE(inquiry->exchange));
	buf_deinit(&inquiry->body);
}

static void tell(struct call *call, const struct identity *identity)
{
	struct exec_endpoint *endpoint = call->endpoint;
	count(call, identity_result_name(identity->result));
	if (identity->result != IDENTITY_FAILED)
		identity_cache_put(&endpoint->identity_cache, call->inquiry.key, identity, uv_now(endpoint->options.loop));
	end_inquiry(call);
	conclude(call, identity);
}

static void fail(struct call *call)
{
	tell(call, &(struct identity){.result = IDENTITY_FAILED});
}

/* --- from Datasette ---------------------------------------------------------------------------------------------------------- */

static void note(const struct call *call, const struct exchange_failure *failure)
{
	call_note_exchange(call, call->inquiry.exchange, call->inquiry.status, failure);
}

static void on_head(void *ctx, const struct response_head *head)
{
	((struct call *)ctx)->inquiry.status = head->status;
}

static size_t on_room(void *ctx UNUSED)
{
	return IDENTITY_ANSWER_MAX;
}

static void on_body(void *ctx, struct slice bytes)
{
	struct call *call = ctx;
	struct inquiry *inquiry = &call->inquiry;
	/* A drop now and then must not keep the caller waiting for ever. */
	if (uv_now(call->endpoint->options.loop) <= inquiry->deadline_ms && buf_append(&inquiry->body, bytes) == 0)
		return;
	note(call, NULL);
	fail(call);
}

static void on_end(void *ctx)
{
	struct call *call = ctx;
	struct identity identity;
	note(call, NULL);
	call->inquiry.exchange = NULL;
	if (identity_read(&call->endpoint->identity_rules, call->inquiry.status, buf_peek(&call->inquiry.body), &identity) < 0) {
		end_inquiry(call);
		call_refuse(call, exec_problem_internal);
		return;
	}
	tell(call, &identity);
}

static void on_failed(void *ctx, const struct exchange_failure *failure)
{
	struct call *call = ctx;
	note(call, failure);
	call->inquiry.exchange = NULL;
	fail(call);
}

static const struct exchange_events events = {
	.on_head = on_head, .on_room = on_room, .on_body = on_body, .on_end = on_end, .on_failed = on_failed};

/* --- the question -------------------------------------------------------------------------------------------------------------- */

/* All that Datasette will be told but the request's id: who gets another answer than this caller has sent something else. */
static int make_key(struct call *call, unsigned char key[IDENTITY_CACHE_KEY])
{
	struct http_head head = *call->reply.head;
	CLEANUP(buf_deinit) struct buf sent = BUF_MAX(HEAD_MAX);
	head.id = SLICE("-");
	int r = forward_on_behalf(&head, &call->endpoint->options.forward, SLICE("GET"), TARGET, CREDENTIALS, (struct slice){0}, &sent);
	return r ? r : identity_cache_key(&call->endpoint->identity_cache, buf_peek(&sent), key);
}

static int ask(struct call *call)
{
	const struct exec_endpoint_options *options = &call->endpoint->options;
	struct inquiry *inquiry = &call->inquiry;
	CLEANUP(buf_deinit) struct buf head = BUF_MAX(HEAD_MAX);
	int r = forward_on_behalf(call->reply.head, &options->forward, SLICE("GET"), TARGET, CREDENTIALS, (struct slice){0}, &head);
	if (r != 0)
		return r;
	unsigned wait_ms = options->datasette_ms < ANSWER_MS ? options->datasette_ms : ANSWER_MS;
	struct exchange_request request = {.head = buf_peek(&head), .may_retry = true, .first_byte_ms = wait_ms, .idle_ms = wait_ms};
	inquiry->body = BUF_MAX(IDENTITY_ANSWER_MAX);
	inquiry->status = 0;
	inquiry->deadline_ms = uv_now(options->loop) + ANSWER_MS;
	return exchange_start(options->exchanges, &request, &events, call, &inquiry->exchange);
}

void call_identify(struct call *call, void (*then)(struct call *call))
{
	struct exec_endpoint *endpoint = call->endpoint;
	struct inquiry *inquiry = &call->inquiry;
	if (!call->by_identity) {
		then(call);
		return;
	}
	inquiry->then = then;
	if (make_key(call, inquiry->key) != 0) {
		fail(call);
		return;
	}
	const struct identity *known = identity_cache_find(&endpoint->identity_cache, inquiry->key, uv_now(endpoint->options.loop));
	if (known) {
		count(call, "cached");
		conclude(call, known);
	} else if (ask(call) != 0) {
		inquiry->exchange = NULL;
		fail(call);
	}
}

void call_identity_stop(struct call *call)
{
	end_inquiry(call);
}
