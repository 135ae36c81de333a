/*
 * One command's use of a session:
 *
 *   its Sprite is known   (PLACING → (CROWDED → PLACING) → RESUMING → (CONFIRMING → RESUMING) →) (OPENING →) DONE
 *   it has none yet       CLAIMING → BINDING → (OPENING →) DONE
 */
#include "gateway/exec/sessions_parts.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#define OPEN_LEAST_MS 1000 /* a Sprite may be ready at the very end of the wait */
#define RETRY_MS      2000
#define PLACE_MS      500 /* whether it may run is asked again */

enum state { BEGINNING, CLAIMING, BINDING, PLACING, CROWDED, RESUMING, CONFIRMING, OPENING, DONE };

struct session_use {
	struct sessions *sessions;
	enum state state;
	struct session_want want;
	char sprite[PROVIDER_NAME_MAX + 1]; /* "" = it has none yet */
	const char *tier;
	uint64_t ready_from_us, ready_us; /* as in struct pool_grant */
	struct session_channel *channel;
	struct pool_claim *claim;
	struct pool_member *member;     /* until it is the session's */
	struct session_errand *errand;
	uint64_t deadline_ms;           /* in loop time */
	struct session_holder holder;   /* in sessions->holders while `sprite` is set there */
	bool absent;                    /* the provider has said once that the Sprite does not exist */
	session_use_done done;
	void *ctx;
	uv_timer_t timer;
};

static void on_timer(uv_timer_t *timer);

static uint64_t left_ms(const struct session_use *use)
{
	uint64_t now = uv_now(use->sessions->options.loop);
	return use->deadline_ms > now ? use->deadline_ms - now : 0;
}

static void enter(struct session_use *use, enum state state, uint64_t timeout_ms)
{
	use->state = state;
	uv_timer_start(&use->timer, on_timer, timeout_ms, 0);
}

static void hold(struct session_use *use)
{
	use->holder.sprite = use->sprite;
	DL_APPEND(use->sessions->holders, &use->holder);
	sessions_tell_pool(use->sessions);
}

static void let_go(struct session_use *use)
{
	if (!use->holder.sprite)
		return;
	DL_DELETE(use->sessions->holders, &use->holder);
	use->holder.sprite = NULL;
	sessions_tell_pool(use->sessions);
}

/* --- answers ------------------------------------------------------------------ */

static void tell(struct session_use *use, struct session_use_result result)
{
	use->state = DONE;
	uv_timer_stop(&use->timer);
	use->done(use->ctx, &result);
}

static void fail(struct session_use *use, const char *detail, uint64_t retry_after_ms)
{
	tell(use, (struct session_use_result){
			  .code = SESSION_USE_FAILED, .detail = detail, .retry_after_ms = retry_after_ms ? retry_after_ms : RETRY_MS});
}

static void lose(struct session_use *use)
{
	struct sessions *sessions = use->sessions;
	log_warning_of(&use->want.ref.subject, "sessions: %s does not exist any more, and with it its session", use->sprite);
	sessions->counts.lost++;
	session_store_lost(sessions->store, use->sprite);
	tell(use, (struct session_use_result){.code = SESSION_USE_LOST, .detail = "The sandbox of this session does not exist any more."});
}

/* --- errands ------------------------------------------------------------------ */

static struct session_errand *send_out(struct session_use *use, bool is_awaited)
{
	struct session_errand *errand = calloc(1, sizeof *errand);
	if (!errand)
		return NULL;
	*errand = (struct session_errand){.sessions = use->sessions, .use = use, .is_awaited = is_awaited};
	memcpy(errand->sprite, use->sprite, sizeof errand->sprite);
	DL_APPEND(use->sessions->errands, errand);
	use->errand = errand;
	return errand;
}

/* It has come back, or was not begun. NULL: nobody waits for it. */
static struct session_use *end_errand(struct session_errand *errand)
{
	struct session_use *use = errand->use;
	if (use)
		use->errand = NULL;
	if (errand->sessions)
		DL_DELETE(errand->sessions->errands, errand);
	free(errand);
	return use;
}

static void forget_errand(struct session_use *use)
{
	if (use->errand)
		use->errand->use = NULL;
	use->errand = NULL;
}

/* --- the network -------------------------------------------------------------- */

static void ready(struct session_use *use)
{
	tell(use, (struct session_use_result){.code = SESSION_USE_READY,
					      .sandbox = use->channel->sandbox,
					      .sprite = use->sprite,
					      .tier = use->tier,
					      .ready_from_us = use->ready_from_us,
					      .ready_us = use->ready_us,
					      .created = use->want.session.fresh,
					      .detail = ""});
}

static void on_opened(void *ctx, const struct provider_result *result)
{
	struct session_use *use = end_errand(ctx);
	if (!use)
		return;
	if (result->code != PROVIDER_OK) {
		log_warning_of(&use->want.ref.subject, "sessions: open %s: %s", use->sprite, result->detail);
		session_channel_free(TAKE(use->channel)); /* what it is open for is not known */
		fail(use, "The sandbox's network could not be opened as the token says.", result->retry_after_ms);
		return;
	}
	snprintf(use->channel->egress, sizeof use->channel->egress, "%s", use->want.egress);
	ready(use);
}

static void open_network(struct session_use *use)
{
	const struct provider *provider = &use->sessions->options.provider;
	if (strcmp(use->channel->egress, use->want.egress) == 0) {
		ready(use);
		return;
	}
	enter(use, OPENING, left_ms(use) > OPEN_LEAST_MS ? left_ms(use) : OPEN_LEAST_MS);
	struct session_errand *errand = send_out(use, true);
	int r = errand ? provider->ops->open_network(provider->self, use->sprite, use->want.egress, on_opened, errand) : -ENOMEM;
	if (r == 0)
		return;
	if (errand)
		(void)end_errand(errand);
	session_channel_free(TAKE(use->channel));
	fail(use, "The sandbox's network could not be opened as the token says.", 0);
}

/* --- a session that has its Sprite --------------------------------------------- */

static void resume(struct session_use *use);

/* Too late for its use, but the Sprite is awake now: the next one need not wake it. One that has begun makes a channel of its own, and opens
 * the network for itself. */
static void keep_late(struct sessions *sessions, const char *sprite, struct sandbox *sandbox)
{
	/* Of a shared pool it would run for longer than the others count it. */
	bool wanted = sessions && !sessions_is_held(sessions, sprite) && !pool_is_shared(sessions->options.pool);
	struct session_channel *channel = wanted ? session_channel_new(sprite, sandbox) : NULL;
	if (channel)
		sessions_put_channel(sessions, channel);
	else if (!wanted)
		sandbox_close(sandbox);
}

/* One "not found" is no licence to give a session up. */
static void deny(struct session_use *use)
{
	if (use->absent) {
		lose(use);
		return;
	}
	use->absent = true;
	if (left_ms(use) > SESSIONS_CONFIRM_MS)
		enter(use, CONFIRMING, SESSIONS_CONFIRM_MS);
	else
		fail(use, "The sandbox of this session was not found; that is not certain yet.", SESSIONS_CONFIRM_MS);
}

static void resumed(struct session_use *use, struct sandbox *sandbox)
{
	use->channel = session_channel_new(use->sprite, sandbox);
	if (!use->channel) {
		fail(use, "The gateway is out of memory.", 0);
		return;
	}
	use->sessions->counts.resumed++;
	use->ready_us = clock_mono_us();
	open_network(use);
}

static void on_resumed(void *ctx, const struct provider_result *result)
{
	struct session_errand *errand = ctx;
	if (!errand->use && result->code == PROVIDER_OK)
		keep_late(errand->sessions, errand->sprite, result->sandbox);
	struct session_use *use = end_errand(errand);
	if (!use)
		return;
	if (result->code == PROVIDER_OK) {
		resumed(use, result->sandbox);
		return;
	}
	log_warning_of(&use->want.ref.subject, "sessions: resume %s: %s", use->sprite, result->detail);
	if (result->code == PROVIDER_GONE)
		deny(use);
	else
		fail(use, "The sandbox of this session could not be woken.", result->retry_after_ms);
}

static void resume(struct session_use *use)
{
	const struct provider *provider = &use->sessions->options.provider;
	enter(use, RESUMING, left_ms(use));
	use->ready_from_us = clock_mono_us();
	struct session_errand *errand = send_out(use, true);
	int r = errand ? provider->ops->resume(provider->self, use->sprite, on_resumed, errand) : -ENOMEM;
	if (r == 0)
		return;
	if (errand)
		(void)end_errand(errand);
	fail(use, "The sandbox of this session could not be woken.", 0);
}

static void not_known(struct session_use *use)
{
	fail(use, "Whether the sandbox of this session may run is not known.", 0);
}

/* As many run as may, in all gateways together; or that is not known just now. */
static void not_placed(struct session_use *use, int code, uint64_t retry_after_ms)
{
	uint64_t wait_ms = retry_after_ms ? retry_after_ms : PLACE_MS;
	if (left_ms(use) > wait_ms)
		enter(use, CROWDED, wait_ms);
	else if (code == POOL_E_UNAVAILABLE)
		not_known(use);
	else
		tell(use, (struct session_use_result){.code = SESSION_USE_REFUSED,
						      .refusal = code,
						      .retry_after_ms = RETRY_MS,
						      .detail = "As many sandboxes run as may."});
}

static void on_placed(void *ctx, int code, uint64_t retry_after_ms)
{
	struct session_use *use = end_errand(ctx);
	if (!use)
		return;
	if (code == 0)
		resume(use);
	else
		not_placed(use, code, retry_after_ms);
}

static void place(struct session_use *use)
{
	enter(use, PLACING, left_ms(use));
	struct session_errand *errand = send_out(use, true);
	int r = errand ? pool_place(use->sessions->options.pool, use->sprite, on_placed, errand) : -ENOMEM;
	if (r == 0)
		return;
	if (errand)
		(void)end_errand(errand);
	if (r > 0)
		resume(use);
	else if (r == -ENOMEM)
		fail(use, "The gateway is out of memory.", 0);
	else
		not_known(use);
}

/* The pool stops, or its money is spent. */
static bool is_refused(struct session_use *use)
{
	int refusal = pool_admits(use->sessions->options.pool);
	if (refusal)
		tell(use,
		     (struct session_use_result){
			     .code = SESSION_USE_REFUSED, .refusal = refusal, .retry_after_ms = RETRY_MS, .detail = "The pool refuses."});
	return refusal != 0;
}

static void place_again(struct session_use *use)
{
	if (!is_refused(use))
		place(use);
}

static void go_on(struct session_use *use)
{
	if (is_refused(use))
		return;
	hold(use);
	use->channel = sessions_take_channel(use->sessions, use->sprite);
	use->tier = use->channel ? "hot" : "warm";
	/* What was opened for nothing any more is closed again with a new channel. */
	if (use->channel && use->channel->egress[0] && !use->want.egress[0])
		session_channel_free(TAKE(use->channel));
	if (use->channel)
		open_network(use);
	else
		place(use);
}

/* --- a session that begins ------------------------------------------------------ */

/* It may be written down as the session's. */
static void give_back(struct session_use *use)
{
	pool_discard(use->sessions->options.pool, TAKE(use->member));
}

/* It is written down as the session's. */
static void keep(struct session_use *use)
{
	struct sessions *sessions = use->sessions;
	bool kept = sessions_keep(sessions, use->sprite) == 0;
	/* Before it leaves the pool, which would think that there is room for another. */
	sessions_tell_pool(sessions);
	struct sandbox *sandbox = kept ? pool_keep(sessions->options.pool, use->member) : NULL;
	if (!sandbox) {
		session_store_lost(sessions->store, use->sprite);
		give_back(use);
		fail(use, "The sandbox was lost before the session could begin.", 0);
		return;
	}
	use->member = NULL;
	sessions->counts.created++;
	use->channel = session_channel_new(use->sprite, sandbox);
	hold(use);
	if (use->channel)
		open_network(use);
	else
		fail(use, "The gateway is out of memory.", 0);
}

static void on_bound(void *ctx, enum session_store_code code)
{
	struct session_use *use = end_errand(ctx);
	if (!use)
		return;
	if (code == SESSION_STORE_OK) {
		keep(use);
		return;
	}
	if (code == SESSION_STORE_LOST)
		session_store_lost(use->sessions->store, use->sprite); /* if it was written down after all */
	give_back(use);
	fail(use, code == SESSION_STORE_ENDED ? "The session was closed meanwhile." : "The session could not be recorded.", 0);
}

static void write_down(struct session_use *use)
{
	enter(use, BINDING, left_ms(use) > OPEN_LEAST_MS ? left_ms(use) : OPEN_LEAST_MS);
	struct session_errand *errand = send_out(use, false);
	int r = errand ? session_store_bind(use->sessions->store, &use->want.ref, use->sprite, on_bound, errand) : -ENOMEM;
	if (r == 0)
		return;
	if (errand)
		(void)end_errand(errand);
	give_back(use);
	fail(use, "The session could not be recorded.", 0);
}

static void on_granted(void *ctx, const struct pool_grant *grant)
{
	struct session_use *use = ctx;
	use->claim = NULL;
	if (grant->code) {
		tell(use, (struct session_use_result){.code = SESSION_USE_REFUSED,
						      .refusal = grant->code,
						      .retry_after_ms = grant->retry_after_ms,
						      .detail = grant->detail});
		return;
	}
	use->member = grant->member;
	use->tier = grant->tier;
	use->ready_from_us = grant->ready_from_us;
	use->ready_us = grant->ready_us;
	snprintf(use->sprite, sizeof use->sprite, "%s", pool_member_name(grant->member));
	write_down(use);
}

static void claim(struct session_use *use)
{
	use->state = CLAIMING;
	if (pool_claim(use->sessions->options.pool, use->want.tenant, left_ms(use), on_granted, use, &use->claim) < 0)
		fail(use, "The gateway is out of memory.", 0);
}

/* --- time, and the end ---------------------------------------------------------- */

static void overdue(struct session_use *use)
{
	forget_errand(use);
	if (use->member) {
		session_store_lost(use->sessions->store, use->sprite);
		give_back(use);
	}
	session_channel_free(TAKE(use->channel));
	fail(use, "The sandbox of this session was not ready in time.", 0);
}

static void on_timer(uv_timer_t *timer)
{
	struct session_use *use = timer->data;
	if (use->state == CONFIRMING)
		resume(use);
	else if (use->state == CROWDED)
		place_again(use);
	else if (use->state != BEGINNING)
		overdue(use);
	else if (use->sprite[0])
		go_on(use);
	else
		claim(use);
}

struct session_use *session_use_start(struct sessions *sessions, const struct session_want *want, session_use_done done, void *ctx)
{
	struct session_use *use = calloc(1, sizeof *use);
	if (!use)
		return NULL;
	*use = (struct session_use){.sessions = sessions,
				    .want = *want,
				    .tier = "none",
				    .deadline_ms = uv_now(sessions->options.loop) + want->wait_ms,
				    .done = done,
				    .ctx = ctx};
	memcpy(use->sprite, want->session.sprite, sizeof use->sprite);
	uv_timer_init(sessions->options.loop, &use->timer);
	use->timer.data = use;
	enter(use, BEGINNING, 0);
	return use;
}

static void on_closed(uv_handle_t *handle)
{
	free(handle->data);
}

void session_use_end(struct session_use *use, bool idle)
{
	struct sessions *sessions = use->sessions;
	forget_errand(use);
	if (use->claim)
		pool_cancel(sessions->options.pool, use->claim);
	if (use->member) {
		session_store_lost(sessions->store, use->sprite);
		give_back(use);
	}
	if (use->channel && idle)
		sessions_put_channel(sessions, TAKE(use->channel));
	session_channel_free(TAKE(use->channel));
	let_go(use);
	uv_close((uv_handle_t *)&use->timer, on_closed);
}
