#include "gateway/proxy/relay.h"

#include "gateway/proxy/internal.h"
#include "gateway/proxy/upgrade.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define HEAD_MAX (256 * 1024)

void relay_defaults(struct relay_options *options)
{
	*options = (struct relay_options){
		.forward = {.pseudonym = SLICE("spritegate"), .default_host = SLICE("localhost")},
		.max_body = 128ull * 1024 * 1024,
		.first_byte_ms = 60000,
		.idle_ms = 60000,
		.event_stream_idle_ms = 15 * 60000,
	};
}

/* --- problems ------------------------------------------------------------------------------------------------------------- */

/* An answer that is no 101 may take long to be read: it keeps the place of a WebSocket from nobody, and no connection to Datasette. */
static void give_place_back(struct carry *carry)
{
	tunnel_free(TAKE(carry->tunnel));
}

static void answer_problem(struct carry *carry, const struct http_problem *problem, bool retry_after)
{
	struct http_fields extra;
	give_place_back(carry);
	http_fields_clear(&extra);
	if ((retry_after && http_fields_add(&extra, SLICE("Retry-After"), SLICE("1")) != 0) ||
	    http_request_respond_problem(carry->request, problem, &extra) < 0)
		http_request_abort(carry->request);
}

static void answer_internal(struct carry *carry)
{
	struct http_problem problem = {.status = 500, .code = "internal", .detail = SLICE("This gateway failed.")};
	answer_problem(carry, &problem, false);
}

static void answer_busy(struct carry *carry)
{
	struct http_problem problem = {
		.status = 503, .code = "temporary-reduced-capacity", .detail = SLICE("Too many requests wait for Datasette.")};
	answer_problem(carry, &problem, true);
}

static void answer_crowded(struct carry *carry)
{
	struct http_problem problem = {
		.status = 503, .code = "temporary-reduced-capacity", .detail = SLICE("Too many WebSockets are open.")};
	answer_problem(carry, &problem, true);
}

static void answer_loop(struct carry *carry)
{
	struct http_problem problem = {.status = 502,
				       .code = "loop",
				       .detail = SLICE("The request has been through this gateway already: "
						       "DATASETTE_URL leads back here.")};
	answer_problem(carry, &problem, false);
}

static void answer_failure(struct carry *carry, const struct exchange_failure *failure)
{
	char detail[512], extra[64];
	bool late = failure->error == EXCHANGE_TIMEOUT;
	int len = snprintf(detail, sizeof detail, "Datasette failed, not the gateway: %s.", failure->detail);
	snprintf(extra, sizeof extra, "\"upstream\":\"datasette\",\"upstream_error\":\"%s\"", exchange_error_name(failure->error));
	struct http_problem problem = {
		.status = late ? 504 : 502,
		.code = late ? "upstream-timeout" : "bad-upstream",
		.detail = slice_of(detail, (size_t)len < sizeof detail ? (size_t)len : sizeof detail - 1),
		.extra = slice_str(extra),
	};
	answer_problem(carry, &problem, false);
}

/* --- from Datasette --------------------------------------------------------------------------------------------------------- */

static void on_interim(void *ctx, const struct response_head *head)
{
	struct carry *carry = ctx;
	struct http_fields *fields = &carry->relay->fields;
	if (head->status == 100)
		http_request_go_on(carry->request);
	else if (forward_response(head, fields) == 0)
		http_request_inform(carry->request, head->status, fields);
}

static void note_timing(struct carry *carry)
{
	carry->summary.upstream = exchange_timing(carry->exchange);
	carry->exchange = NULL;
}

static void cancel(struct carry *carry)
{
	struct exchange *exchange = carry->exchange;
	if (!exchange)
		return;
	note_timing(carry);
	exchange_cancel(exchange);
}

void relay_refuse_head(struct carry *carry)
{
	struct http_problem problem = {
		.status = 502,
		.code = "answer-head-too-large",
		.detail = SLICE("Datasette answered, but the head of its answer is larger than this gateway passes on.")};
	cancel(carry);
	carry->summary.head_refused = true;
	answer_problem(carry, &problem, false);
}

static void on_head(void *ctx, const struct response_head *head)
{
	struct carry *carry = ctx;
	struct http_fields *fields = &carry->relay->fields;
	give_place_back(carry);
	carry->summary.upstream_status = head->status;
	if (forward_is_event_stream(head))
		exchange_set_idle(carry->exchange, carry->relay->options.event_stream_idle_ms);
	int r = forward_response(head, fields);
	if (r == 0) {
		cached_head(carry, head->status, fields, head->length != RESPONSE_LENGTH_UNKNOWN);
		r = http_request_respond_stream(carry->request, head->status, fields, head->length);
	}
	carry->head_passed = r == 0;
	if (r == HTTP_REQUEST_E_HEAD)
		relay_refuse_head(carry);
	else if (r < 0)
		http_request_abort(carry->request);
	cached_begun(carry);
}

static size_t on_room(void *ctx)
{
	struct carry *carry = ctx;
	size_t room = http_request_room(carry->request);
	cached_room(carry, room);
	return room;
}

static void on_response_body(void *ctx, struct slice bytes)
{
	struct carry *carry = ctx;
	/* Never more than on_room has promised. */
	if (http_request_write(carry->request, bytes) < bytes.len)
		http_request_abort(carry->request);
	cached_body(carry, bytes);
}

static void on_upstream_writable(void *ctx)
{
	struct carry *carry = ctx;
	http_request_resume_body(carry->request);
}

static void on_response_end(void *ctx)
{
	struct carry *carry = ctx;
	note_timing(carry);
	http_request_end(carry->request);
	cached_end(carry);
}

static void on_response_failed(void *ctx, const struct exchange_failure *failure)
{
	struct carry *carry = ctx;
	note_timing(carry);
	cached_quit(carry);
	if (failure->error == EXCHANGE_HEAD && !carry->head_passed) {
		relay_refuse_head(carry);
		return;
	}
	carry->summary.failed = true;
	carry->summary.error = failure->error;
	if (carry->head_passed)
		http_request_abort(carry->request);
	else
		answer_failure(carry, failure);
}

static void fail_switch(struct carry *carry)
{
	struct exchange_failure failure = {.error = EXCHANGE_PROTOCOL, .detail = "it switched protocols, but not as it was asked to"};
	carry->summary.failed = true;
	carry->summary.error = failure.error;
	answer_failure(carry, &failure);
}

static void on_switched(void *ctx, const struct response_head *head, struct connection *connection, struct slice early)
{
	struct carry *carry = ctx;
	struct http_fields *fields = &carry->relay->fields;
	note_timing(carry);
	carry->summary.upstream_status = head->status;
	if (!upgrade_is_granted(http_request_head(carry->request), head)) {
		connection_release(connection, false);
		fail_switch(carry);
		return;
	}
	int r = forward_response(head, fields);
	if (r == 0)
		r = tunnel_take(carry->tunnel, connection, early);
	else
		connection_release(connection, false);
	if (r == 0)
		r = http_request_upgrade(carry->request, UPGRADE_PROTOCOL, fields);
	if (r == HTTP_REQUEST_E_HEAD)
		relay_refuse_head(carry);
	else if (r < 0)
		http_request_abort(carry->request);
}

static void on_more(void *ctx)
{
	struct carry *carry = ctx;
	http_request_more(carry->request);
}

static const struct exchange_events exchange_events = {
	.on_interim = on_interim,
	.on_head = on_head,
	.on_room = on_room,
	.on_body = on_response_body,
	.on_more = on_more,
	.on_writable = on_upstream_writable,
	.on_end = on_response_end,
	.on_switched = on_switched,
	.on_failed = on_response_failed,
};

/* --- from the client ---------------------------------------------------------------------------------------------------------- */

static size_t on_request_body(void *ctx, struct slice bytes)
{
	struct carry *carry = ctx;
	return carry->exchange && carry->passes_body ? exchange_write(carry->exchange, bytes) : bytes.len;
}

static void on_request_end(void *ctx)
{
	struct carry *carry = ctx;
	if (carry->exchange)
		exchange_end(carry->exchange);
}

static void on_client_writable(void *ctx)
{
	struct carry *carry = ctx;
	if (carry->exchange)
		exchange_resume(carry->exchange);
}

static size_t on_client_pull(void *ctx, char *into, size_t room)
{
	struct carry *carry = ctx;
	return carry->exchange && !cached_keeps(carry) ? exchange_pull(carry->exchange, into, room) : 0;
}

static void on_client_upgraded(void *ctx, struct slice early)
{
	struct carry *carry = ctx;
	tunnel_open(carry->tunnel, early);
}

static void on_client_ready(void *ctx, bool readable, bool writable)
{
	struct carry *carry = ctx;
	tunnel_ready(carry->tunnel, readable, writable);
}

static void on_client_gone(void *ctx)
{
	struct carry *carry = ctx;
	cancel(carry);
	cached_quit(carry);
	if (carry->tunnel)
		tunnel_stop(carry->tunnel);
}

static void on_finished(void *ctx, const struct http_summary *summary)
{
	struct carry *carry = ctx;
	struct relay *relay = carry->relay;
	cancel(carry);
	cached_finished(carry);
	carry->summary.tunneled = carry->tunnel && tunnel_ended(carry->tunnel, &carry->summary.tunnel_end);
	tunnel_free(TAKE(carry->tunnel));
	carry->summary.http = *summary;
	if (relay->options.on_finished)
		relay->options.on_finished(relay->options.ctx, http_request_head(carry->request), &carry->summary);
	carry->next = relay->free;
	relay->free = carry;
}

static const struct http_sink sink = {
	.on_body = on_request_body,
	.on_body_end = on_request_end,
	.on_writable = on_client_writable,
	.on_pull = on_client_pull,
	.on_upgraded = on_client_upgraded,
	.on_ready = on_client_ready,
	.on_gone = on_client_gone,
	.on_finished = on_finished,
};

/* --- the way there --------------------------------------------------------------------------------------------------------------- */

static struct carry *new_carry(struct relay *relay, struct http_request *request)
{
	struct carry *carry = relay->free;
	if (carry)
		relay->free = carry->next;
	else
		carry = malloc(sizeof *carry);
	if (carry)
		*carry = (struct carry){.relay = relay, .request = request};
	return carry;
}

static int start_exchange(struct carry *carry)
{
	struct relay *relay = carry->relay;
	const struct http_head *head = http_request_head(carry->request);
	static const enum exchange_body bodies[] = {
		[HTTP_BODY_NONE] = EXCHANGE_BODY_NONE,
		[HTTP_BODY_LENGTH] = EXCHANGE_BODY_LENGTH,
		[HTTP_BODY_CHUNKED] = EXCHANGE_BODY_CHUNKED,
	};
	struct exchange_request request = {
		.head = buf_peek(&relay->head),
		.body = carry->passes_body ? bodies[head->body] : EXCHANGE_BODY_NONE,
		.length = head->content_length,
		.to_head = slice_equal(head->method, SLICE("HEAD")),
		.may_retry = forward_may_retry(head),
		.switches = carry->tunnel,
		.first_byte_ms = relay->options.first_byte_ms,
		.idle_ms = relay->options.idle_ms,
	};
	return exchange_start(relay->options.exchanges, &request, &exchange_events, carry, &carry->exchange);
}

static void answer_options(struct carry *carry)
{
	struct http_fields fields;
	http_fields_clear(&fields);
	if (http_fields_add(&fields, SLICE("Allow"), SLICE(HTTP_GUARD_METHODS)) != 0 ||
	    http_request_respond(carry->request, 204, &fields, (struct slice){0}) < 0)
		http_request_abort(carry->request);
}

static int take_body(struct carry *carry)
{
	uint64_t max_body = carry->relay->options.max_body;
	return forward_awaits_continue(http_request_head(carry->request)) ? http_request_hold(carry->request, max_body)
									  : http_request_read(carry->request, max_body);
}

void relay_pass_on(struct carry *carry)
{
	struct relay *relay = carry->relay;
	struct http_request *request = carry->request;
	buf_consume(&relay->head, relay->head.len);
	int r = forward_request(http_request_head(request), &relay->options.forward, &relay->head);
	if (r == FORWARD_E_LOOP) {
		answer_loop(carry);
		return;
	}
	if (r == FORWARD_E_LAST) {
		answer_options(carry);
		return;
	}
	if (r == 0 && carry->tunnel)
		r = buf_append(&relay->head, SLICE("Connection: Upgrade\r\nUpgrade: " UPGRADE_PROTOCOL "\r\n"));
	/* Nothing is asked of Datasette for a body that is refused anyway. */
	if (r == 0 && take_body(carry) != 0)
		return;
	if (r == 0)
		r = start_exchange(carry);
	carry->asked = r == 0;
	if (r == EXCHANGE_E_BUSY)
		answer_busy(carry);
	else if (r != 0)
		answer_internal(carry);
}

void relay_handle(struct relay *relay, struct http_request *request)
{
	struct carry *carry = new_carry(relay, request);
	if (!carry) {
		http_request_abort(request);
		return;
	}
	carry->passes_body = forward_passes_body(http_request_head(request));
	http_request_attach(request, &sink, carry);
	if (relay->options.tunnels && upgrade_is_asked(http_request_head(request))) {
		carry->tunnel = tunnel_new(relay->options.tunnels, request);
		if (!carry->tunnel) {
			answer_crowded(carry);
			return;
		}
	}
	if (!cached_answer(carry))
		relay_pass_on(carry);
}

/* --- life ------------------------------------------------------------------------------------------------------------------------- */

struct relay *relay_new(const struct relay_options *options)
{
	struct relay *relay = calloc(1, sizeof *relay);
	if (!relay)
		return NULL;
	relay->options = *options;
	buf_init(&relay->head, HEAD_MAX);
	if (cached_init(relay) == 0)
		return relay;
	relay_free(relay);
	return NULL;
}

void relay_set_limits(struct relay *relay, uint64_t max_body, unsigned silence_ms)
{
	struct relay_options usual;
	relay_defaults(&usual);
	relay->options.max_body = max_body;
	relay->options.first_byte_ms = relay->options.idle_ms = silence_ms;
	relay->options.event_stream_idle_ms = silence_ms > usual.event_stream_idle_ms ? silence_ms : usual.event_stream_idle_ms;
}

void relay_free(struct relay *relay)
{
	if (!relay)
		return;
	while (relay->free) {
		struct carry *carry = relay->free;
		relay->free = carry->next;
		free(carry);
	}
	cached_deinit(relay);
	buf_deinit(&relay->head);
	free(relay);
}
