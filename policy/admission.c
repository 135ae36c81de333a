#include "policy/admission.h"

#include "gateway/base/clock.h"
#include "gateway/base/id.h"
#include "gateway/base/log.h"
#include "policy/degraded.h"
#include "policy/holds.h"
#include "policy/keys.h"
#include "policy/known_bad.h"
#include "policy/script.h"
#include "policy/settlements.h"
#include "policy/token.h"
#include "policy/verdict.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#define SCOPE                "exec:run"
#define PROGRAM_MAX          255
#define UNAVAILABLE_RETRY_MS 2000
#define SETTLE_RETRY_MS      500
#define SAY_TYPE_MS          60000
#define EXEC_ID_LEN          ID_UUID_LEN
#define DIGEST_LEN           64

_Static_assert(TOKEN_KID_LEN == ADMISSION_KID_LEN, "one length of a kid");

struct admission_call {
	struct link_command command;
	struct admission *admission;
	struct admission_call *prev, *next;
	admission_done done; /* NULL once it ran or was cancelled */
	void *ctx;
	char kid[ADMISSION_KID_LEN + 1];
	char lease[ADMISSION_LEASE_LEN + 1];
	char mac[TOKEN_MAC_LEN + 1];
	struct admission_identity identity; /* "" = by its token */
	char program[PROGRAM_MAX + 1];
	uint64_t want_ms, wait_ms, input_bytes, usual_output_bytes, most_output_bytes;
	char address[33]; /* hexadecimal, "" = not known */
	char looked_for[EXEC_ID_LEN + 1];
	bool kill;
	struct log_subject subject;
	char exec_id[EXEC_ID_LEN + 1]; /* with an idempotency key */
	char key[DIGEST_LEN + 1], fingerprint[DIGEST_LEN + 1];
	char *variables;
	char session[ADMISSION_SESSION_MAX + 1];
	uint64_t session_idle_ms, session_age_ms;
	bool degradable;
	char digest[SHA256_HEX + 1]; /* of what it asks for; "" = nobody is asked but Redis */
	char secret[SHA256_HEX + 1]; /* of what the caller showed */
	uint64_t asked_ms;
	/* Of a call that was never sent: what it will be told in the next loop turn. */
	enum admission_code refusal;
	const char *reason;
	bool redis_is_away;
};

struct admission {
	struct admission_options options;
	struct link *link;
	struct settlements settlements;
	struct holds holds;
	struct known_bad known_bad;
	char pepper_id[TOKEN_PEPPER_ID_LEN + 1];
	struct admission_call *asked;   /* Redis has not answered yet; also those whose caller is gone */
	struct admission_call *refused; /* never sent */
	size_t pending;                 /* in `asked` */
	uv_timer_t soon;                /* tells `refused` */
	uv_timer_t retry;               /* settlements that Redis answered with an error */
	uint64_t say_type_ms;           /* nothing is said of keys of another type before */
	unsigned handles;
	void (*on_freed)(void *ctx);
	void *freed_ctx;
};

/* --- answers ---------------------------------------------------------------- */

static void finish(struct admission_call *call, struct admission_answer *answer)
{
	admission_done done = call->done;
	call->done = NULL;
	if (!done)
		return;
	memcpy(answer->kid, call->kid, sizeof answer->kid);
	done(call->ctx, answer);
}

static void finish_without_redis(struct admission_call *call, enum admission_code code, const char *reason)
{
	struct admission_answer answer = {.code = code, .log_reason = reason, .violated = "[]", .shadowed = "[]"};
	if (code == ADMISSION_UNAVAILABLE)
		answer.retry_after_ms = UNAVAILABLE_RETRY_MS;
	finish(call, &answer);
}

static void free_call(struct admission_call *call)
{
	free(call->variables);
	free(call);
}

static void free_asked(struct admission_call *call)
{
	struct admission *admission = call->admission;
	DL_DELETE(admission->asked, call);
	admission->pending--;
	free_call(call);
}

/* While Redis is away, and only of what was never sent to it: nothing can hold a lease of this id. False: it is not for degraded.h. */
static bool decide_degraded(struct admission_call *call)
{
	struct degraded *degraded = call->admission->options.degraded;
	if (!degraded || !call->redis_is_away)
		return false;
	struct admission_answer answer = {.code = ADMISSION_UNAVAILABLE,
					  .log_reason = call->reason,
					  .violated = "[]",
					  .shadowed = "[]",
					  .retry_after_ms = UNAVAILABLE_RETRY_MS,
					  .degraded = "unsupported"};
	struct admission_request wish = {
		.want_ms = call->want_ms, .input_bytes = call->input_bytes, .most_output_bytes = call->most_output_bytes};
	struct degraded_grant grant = {0};
	if (call->degradable)
		answer.degraded = degraded_ask(degraded, call->kid, call->digest, &wish, clock_boot_ms(), &grant);
	if (strcmp(answer.degraded, DEGRADED_GRANTED) == 0) {
		answer.code = ADMISSION_GRANTED;
		answer.retry_after_ms = 0;
		answer.policy_version = grant.policy_version;
		answer.output_bytes = grant.output_bytes;
		answer.max_input_bytes = grant.max_input_bytes;
		answer.caps = grant.caps;
		answer.lease.granted_ms = grant.granted_ms;
		answer.lease.degraded = true;
		memcpy(answer.actor, grant.actor, sizeof answer.actor);
		memcpy(answer.policy, grant.policy, sizeof answer.policy);
		memcpy(answer.lease.actor, grant.actor, sizeof answer.lease.actor);
		memcpy(answer.lease.id, call->lease, sizeof answer.lease.id);
		memcpy(answer.lease.kid, call->kid, sizeof answer.lease.kid);
		answer.lease.subject = call->subject;
	}
	finish(call, &answer);
	return true;
}

static void on_soon(uv_timer_t *timer)
{
	struct admission *admission = timer->data;
	struct admission_call *call;
	while ((call = admission->refused)) {
		DL_DELETE(admission->refused, call);
		if (!call->done || !decide_degraded(call))
			finish_without_redis(call, call->refusal, call->reason);
		free_call(call);
	}
}

static void refuse_soon(struct admission_call *call, enum admission_code code, const char *reason)
{
	struct admission *admission = call->admission;
	call->refusal = code;
	call->reason = reason;
	DL_APPEND(admission->refused, call);
	(void)uv_timer_start(&admission->soon, on_soon, 0, 0);
}

/* --- settlements ------------------------------------------------------------ */

static void on_retry(uv_timer_t *timer)
{
	struct admission *admission = timer->data;
	settlements_pump(&admission->settlements);
	if (!admission->settlements.count)
		(void)uv_timer_stop(timer);
}

static void start_retrying(struct admission *admission)
{
	if (!uv_is_active((uv_handle_t *)&admission->retry))
		(void)uv_timer_start(&admission->retry, on_retry, SETTLE_RETRY_MS, SETTLE_RETRY_MS);
}

int admission_settle(struct admission *admission, const struct admission_lease *lease, uint64_t used_ms, uint64_t out_bytes, bool refund,
		     const struct admission_result *result)
{
	if (lease->degraded)
		degraded_end(admission->options.degraded, lease->kid, lease->granted_ms, used_ms);
	int r = settlements_add(&admission->settlements, lease,
				used_ms < lease->granted_ms || !lease->degraded ? used_ms : lease->granted_ms, out_bytes, refund, result);
	if (r && lease->degraded) /* nobody will ever book it */
		degraded_booked(admission->options.degraded, lease->kid, used_ms < lease->granted_ms ? used_ms : lease->granted_ms,
				clock_boot_ms());
	if (r == SETTLEMENTS_E_FULL)
		return ADMISSION_E_FULL;
	if (r == 0)
		start_retrying(admission);
	return r;
}

int admission_restore(struct admission *admission)
{
	int r = settlements_restore(&admission->settlements);
	if (admission->settlements.count)
		start_retrying(admission);
	return r;
}

/* Nobody is there to use this grant. */
static void give_back(struct admission *admission, const struct admission_lease *lease)
{
	if (admission->settlements.stopped && !admission->settlements.unsettled)
		return;
	if (admission_settle(admission, lease, 0, 0, true, NULL) != 0)
		log_warning_of(&lease->subject, "admission: no room to give back lease %s, it ends by itself", lease->id);
}

/* --- the question ----------------------------------------------------------- */

/* A look at what there is, which changes nothing. */
static int send_peek(struct admission_call *call, struct slice key, bool by_text)
{
	struct slice args[] = {
		key,
		slice_str(call->kid),
		slice_str(call->mac),
		slice_str(call->admission->pepper_id),
		SLICE(SCOPE),
		slice_str(call->address),
		slice_str(call->looked_for),
		slice_str(call->identity.actor),
		slice_str(call->identity.policy),
	};
	return script_send(call->admission->link, &call->command, &script_peek, by_text, args, ARRAY_LEN(args));
}

static int send_call(struct admission_call *call, bool by_text)
{
	char key[sizeof KEY_RECORD + ADMISSION_KID_LEN], want[24], wait[24], input[24], usual[24], most[24], idle[24], age[24];
	snprintf(key, sizeof key, KEY_RECORD "%s", call->kid);
	if (call->looked_for[0] && !call->kill)
		return send_peek(call, slice_str(key), by_text);
	snprintf(want, sizeof want, "%" PRIu64, call->want_ms);
	snprintf(wait, sizeof wait, "%" PRIu64, call->wait_ms);
	snprintf(input, sizeof input, "%" PRIu64, call->input_bytes);
	snprintf(usual, sizeof usual, "%" PRIu64, call->usual_output_bytes);
	snprintf(most, sizeof most, "%" PRIu64, call->most_output_bytes);
	snprintf(idle, sizeof idle, "%" PRIu64, call->session_idle_ms);
	snprintf(age, sizeof age, "%" PRIu64, call->session_age_ms);
	struct slice args[] = {
		slice_str(key),
		slice_str(call->kid),
		slice_str(call->mac),
		slice_str(call->admission->pepper_id),
		SLICE(SCOPE),
		slice_str(call->program),
		slice_str(want),
		slice_str(call->lease),
		slice_str(wait),
		slice_str(input),
		slice_str(call->address),
		slice_str(call->variables),
		slice_str(usual),
		slice_str(most),
		slice_str(call->looked_for),
		slice_str(call->key),
		slice_str(call->fingerprint),
		slice_str(call->exec_id),
		slice_str(call->session),
		slice_str(idle),
		slice_str(age),
		slice_str(call->identity.actor),
		slice_str(call->identity.policy),
	};
	return script_send(call->admission->link, &call->command, &script_admit, by_text, args, ARRAY_LEN(args));
}

/* The connection ended, or the answer makes no sense: then there may be a lease. */
static void on_no_answer(struct admission_call *call, const char *reason, bool may_hold)
{
	struct admission *admission = call->admission;
	struct admission_lease lease = {0};
	memcpy(lease.id, call->lease, sizeof lease.id);
	memcpy(lease.kid, call->kid, sizeof lease.kid);
	memcpy(lease.exec_id, call->exec_id, sizeof lease.exec_id);
	lease.subject = call->subject;
	memcpy(lease.actor, call->identity.actor, sizeof lease.actor);
	if (may_hold && !call->looked_for[0])
		give_back(admission, &lease);
	finish_without_redis(call, ADMISSION_UNAVAILABLE, reason);
	free_asked(call);
}

/* Whose keys they are is all that helps, but a busy caller is not to fill the log. */
static void say_wrong_type(const struct admission_call *call, const struct redisReply *reply)
{
	struct admission *admission = call->admission;
	uint64_t now = uv_now(admission->options.loop);
	if (now < admission->say_type_ms)
		return;
	admission->say_type_ms = now + SAY_TYPE_MS;
	log_warning_of(&call->subject, "admission: Redis cannot decide about %s (said once a minute): %.*s", call->kid,
		       (int)(reply->len < 120 ? reply->len : 120), reply->str);
}

/* The other reasons are about a record that an operator may change, or time, at any moment. */
static bool stays_wrong(const struct admission_answer *answer)
{
	return answer->code == ADMISSION_INVALID_TOKEN &&
	       (strcmp(answer->log_reason, "unknown") == 0 || strcmp(answer->log_reason, "bad-mac") == 0 ||
		strcmp(answer->log_reason, "other-pepper") == 0);
}

static void on_answer(struct admission_call *call, const struct redisReply *reply)
{
	struct admission *admission = call->admission;
	struct admission_answer answer;
	uint64_t reaped;
	if (verdict_read(reply, &answer, &reaped) < 0) {
		bool wrong_type = script_met_wrong_type(reply);
		if (wrong_type)
			say_wrong_type(call, reply);
		on_no_answer(call, "redis-error", !wrong_type);
		return;
	}
	if (reaped && admission->options.observer.on_reaped)
		admission->options.observer.on_reaped(admission->options.observer.ctx, reaped);
	if (stays_wrong(&answer))
		known_bad_add(&admission->known_bad, call->kid, call->mac, answer.log_reason, uv_now(admission->options.loop));
	if (admission->options.degraded)
		degraded_learn(admission->options.degraded, call->kid, call->secret, call->digest, &answer, call->asked_ms);
	if (answer.code == ADMISSION_GRANTED) {
		memcpy(answer.lease.id, call->lease, sizeof answer.lease.id);
		memcpy(answer.lease.kid, call->kid, sizeof answer.lease.kid);
		memcpy(answer.lease.exec_id, call->exec_id, sizeof answer.lease.exec_id);
		answer.lease.subject = call->subject;
		if (!call->done)
			give_back(admission, &answer.lease);
	}
	finish(call, &answer);
	free_asked(call);
}

static void on_event(struct link_command *command, enum link_event event, const struct redisReply *reply)
{
	struct admission_call *call = CONTAINER_OF(command, struct admission_call, command);
	if (event == LINK_TIMEOUT) {
		finish_without_redis(call, ADMISSION_UNAVAILABLE, "timeout");
	} else if (event == LINK_LOST) {
		on_no_answer(call, "connection-lost", true);
	} else if (!script_is_missing(reply)) {
		on_answer(call, reply);
	} else if (!call->done || send_call(call, true) != 0) {
		/* Nothing has run. */
		finish_without_redis(call, ADMISSION_UNAVAILABLE, "redis-down");
		free_asked(call);
	}
}

/* A name that could not stand in a list (blanks, too long) is asked as "": no list allows it. */
static void copy_program(struct slice program, char out[PROGRAM_MAX + 1])
{
	bool plain = program.len <= PROGRAM_MAX;
	for (size_t i = 0; plain && i < program.len; i++)
		plain = (unsigned char)program.data[i] > ' ';
	if (plain && program.len)
		memcpy(out, program.data, program.len);
	out[plain ? program.len : 0] = '\0';
}

/* What follows the time in a UUIDv7 is random. */
static void lease_of(struct slice exec_id, char out[ADMISSION_LEASE_LEN + 1])
{
	size_t len = 0, skipped = 0;
	for (size_t i = 0; i < exec_id.len && len < ADMISSION_LEASE_LEN; i++) {
		if (exec_id.data[i] == '-')
			continue;
		if (skipped++ >= 32 - ADMISSION_LEASE_LEN)
			out[len++] = exec_id.data[i];
	}
	out[len] = '\0';
}

static int make_lease_id(char out[ADMISSION_LEASE_LEN + 1])
{
	unsigned char random[ADMISSION_LEASE_LEN / 2];
	int r = id_random(random, sizeof random);
	if (r == 0)
		hex_encode(random, sizeof random, out);
	return r;
}

static int take_caller(struct admission_call *call, const struct admission_request *request, const struct token_parts *token)
{
	if (!request->identity) {
		memcpy(call->kid, token->kid.data, TOKEN_KID_LEN);
		return token_mac(call->admission->options.pepper, token->secret, call->mac);
	}
	call->identity = *request->identity;
	memcpy(call->kid, call->identity.kid, sizeof call->kid);
	return 0;
}

/* All that a rule of its record or policy is compared with. */
static int prepare_degraded(struct admission_call *call, const struct admission_request *request)
{
	const struct slice parts[] = {slice_str(call->kid),     slice_str(call->mac),     slice_str(call->identity.policy),
				      slice_str(call->program), slice_str(call->address), slice_str(call->variables)};
	call->degradable = request->degradable;
	call->asked_ms = clock_boot_ms();
	int r = degraded_digest(parts, ARRAY_LEN(parts), call->digest);
	return r < 0 ? r : degraded_digest(&parts[1], 1, call->secret);
}

static int prepare(struct admission_call *call, const struct admission_request *request, const struct token_parts *token)
{
	copy_program(request->program, call->program);
	if (request->subject)
		call->subject = *request->subject;
	call->want_ms = request->want_ms;
	call->wait_ms = request->wait_ms;
	call->input_bytes = request->input_bytes;
	call->usual_output_bytes = request->usual_output_bytes;
	call->most_output_bytes = request->most_output_bytes;
	if (request->session.len > ADMISSION_SESSION_MAX)
		return -EINVAL;
	snprintf(call->session, sizeof call->session, "%.*s", SLICE_FMT(request->session));
	call->session_idle_ms = request->session_idle_ms;
	call->session_age_ms = request->session_age_ms;
	if (request->address)
		hex_encode(request->address, 16, call->address);
	call->command.event = on_event;
	/* "?" is the name of no variable: only a token that may set any gets past it. */
	bool short_enough = request->variables.len <= ADMISSION_NAMES_MAX;
	call->variables = slice_dup(short_enough ? request->variables : SLICE("?"));
	if (!call->variables)
		return -ENOMEM;
	int r = 0;
	call->kill = request->kill;
	if (request->key.len) {
		snprintf(call->exec_id, sizeof call->exec_id, "%.*s", SLICE_FMT(request->exec_id));
		snprintf(call->key, sizeof call->key, "%.*s", SLICE_FMT(request->key));
		snprintf(call->fingerprint, sizeof call->fingerprint, "%.*s", SLICE_FMT(request->fingerprint));
	}
	if (request->look)
		snprintf(call->looked_for, sizeof call->looked_for, "%.*s", SLICE_FMT(request->exec_id));
	else if (request->exec_id.len == EXEC_ID_LEN)
		lease_of(request->exec_id, call->lease);
	else
		r = make_lease_id(call->lease);
	if (r == 0)
		r = take_caller(call, request, token);
	return r < 0 || !call->admission->options.degraded ? r : prepare_degraded(call, request);
}

int admission_decide(struct admission *admission, const struct admission_request *request, admission_done done, void *ctx,
		     struct admission_call **out)
{
	struct admission_call *call = calloc(1, sizeof *call);
	if (!call)
		return -ENOMEM;
	call->admission = admission;
	call->done = done;
	call->ctx = ctx;
	struct token_parts token = {0};
	if (!request->identity && token_parse(request->token, &token) != 0) {
		refuse_soon(call, ADMISSION_INVALID_TOKEN, "malformed");
	} else {
		int r = prepare(call, request, &token);
		if (r < 0) {
			free_call(call);
			return r;
		}
		const char *bad = known_bad_find(&admission->known_bad, call->kid, call->mac, uv_now(admission->options.loop));
		if (bad && admission->options.observer.on_known_bad)
			admission->options.observer.on_known_bad(admission->options.observer.ctx);
		if (bad) {
			refuse_soon(call, ADMISSION_INVALID_TOKEN, bad);
		} else if (admission->pending >= admission->options.max_pending) {
			refuse_soon(call, ADMISSION_UNAVAILABLE, "too-many-pending");
		} else if (send_call(call, false) != 0) {
			call->redis_is_away = !admission_link_up(admission);
			refuse_soon(call, ADMISSION_UNAVAILABLE, "redis-down");
		} else {
			DL_APPEND(admission->asked, call);
			admission->pending++;
		}
	}
	*out = call;
	return 0;
}

void admission_cancel(struct admission *admission, struct admission_call *call)
{
	(void)admission;
	call->done = NULL;
}

/* --- leases whose commands run ---------------------------------------------- */

void admission_hold(struct admission *admission, struct admission_hold *hold)
{
	holds_add(&admission->holds, hold);
}

void admission_let_go(struct admission *admission, struct admission_hold *hold)
{
	holds_remove(&admission->holds, hold);
}

/* --- life ------------------------------------------------------------------- */

static void on_link_state(void *ctx, enum link_breaker breaker)
{
	struct admission *admission = ctx;
	const struct admission_observer *observer = &admission->options.observer;
	if (breaker == LINK_BREAKER_CLOSED)
		settlements_pump(&admission->settlements);
	if (observer->on_link)
		observer->on_link(observer->ctx, breaker == LINK_BREAKER_CLOSED, (unsigned)breaker);
}

static void on_link_command(void *ctx, uint64_t duration_us, const char *error_kind)
{
	const struct admission_observer *observer = &((struct admission *)ctx)->options.observer;
	if (observer->on_command)
		observer->on_command(observer->ctx, duration_us, error_kind);
}

struct admission *admission_new(const struct admission_options *options)
{
	struct admission *admission = calloc(1, sizeof *admission);
	if (!admission)
		return NULL;
	admission->options = *options;
	admission->options.redis_url = NULL;
	struct link_options link = {
		.loop = options->loop,
		.url = slice_str(options->redis_url),
		.timeout_ms = options->timeout_ms,
		.on_state = on_link_state,
		.on_command = on_link_command,
		.ctx = admission,
	};
	if (token_pepper_id(options->pepper, admission->pepper_id) < 0 || known_bad_init(&admission->known_bad) < 0 ||
	    !(admission->link = link_new(&link))) {
		known_bad_deinit(&admission->known_bad);
		free(admission);
		return NULL;
	}
	settlements_init(&admission->settlements, admission->link, options->max_unsettled, options->unsettled);
	admission->settlements.degraded = options->degraded;
	admission->settlements.on_settled = options->on_settled;
	admission->settlements.ctx = options->settled_ctx;
	holds_init(&admission->holds, options->loop, admission->link);
	(void)uv_timer_init(options->loop, &admission->soon);
	(void)uv_timer_init(options->loop, &admission->retry);
	admission->soon.data = admission->retry.data = admission;
	return admission;
}

static void release(struct admission *admission)
{
	if (--admission->handles)
		return;
	void (*on_freed)(void *) = admission->on_freed;
	void *ctx = admission->freed_ctx;
	settlements_deinit(&admission->settlements);
	known_bad_deinit(&admission->known_bad);
	free(admission);
	if (on_freed)
		on_freed(ctx);
}

static void on_link_freed(void *ctx)
{
	release(ctx);
}

static void on_timer_closed(uv_handle_t *handle)
{
	release(handle->data);
}

static void on_holds_closed(uv_handle_t *handle)
{
	struct holds *holds = handle->data;
	release(CONTAINER_OF(holds, struct admission, holds));
}

void admission_free(struct admission *admission, void (*on_freed)(void *ctx), void *ctx)
{
	struct admission_call *call, *next;
	admission->on_freed = on_freed;
	admission->freed_ctx = ctx;
	admission->handles = 4;
	holds_stop(&admission->holds);
	settlements_stop(&admission->settlements);
	DL_FOREACH (admission->asked, call)
		call->done = NULL;
	link_free(admission->link, on_link_freed, admission);
	DL_FOREACH_SAFE (admission->refused, call, next) {
		DL_DELETE(admission->refused, call);
		free_call(call);
	}
	uv_close((uv_handle_t *)&admission->soon, on_timer_closed);
	uv_close((uv_handle_t *)&admission->retry, on_timer_closed);
	uv_close((uv_handle_t *)&admission->holds.timer, on_holds_closed);
}

size_t admission_unsettled(const struct admission *admission)
{
	return admission->settlements.count;
}

size_t admission_owed(const struct admission *admission)
{
	return settlements_owed(&admission->settlements);
}

bool admission_link_up(const struct admission *admission)
{
	return link_breaker(admission->link) == LINK_BREAKER_CLOSED;
}
