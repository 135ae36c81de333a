#include "gateway/exec/sessions_parts.h"

#include "gateway/base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#define LOOK_MS    2000
#define TICK_MS    250
#define LOCK_MS    60000 /* so long what is to be destroyed is ours alone */
#define CHANNEL_MS 60000 /* ski rental, as hot members: the price of a wake */
#define LINGER_MS  35000 /* without a channel it may run this long before the provider pauses it */

/* A Sprite that is being destroyed. It may outlive the sessions while the provider has not answered: `sessions` is NULL then. */
struct session_removal {
	struct session_removal *prev, *next;
	struct sessions *sessions;
	char sprite[PROVIDER_NAME_MAX + 1];
	bool busy;
	uint64_t next_ms, until_ms; /* in loop time: the next attempt; Redis may tell it to others then */
	uint64_t absent_ms;         /* the first answer that it does not exist; 0 = none */
};

static uint64_t now_ms(const struct sessions *sessions)
{
	return uv_now(sessions->options.loop);
}

/* --- what is kept ------------------------------------------------------------- */

static size_t find_kept(const struct sessions *sessions, const char *sprite)
{
	size_t i = 0;
	while (i < sessions->kept_count && strcmp(sessions->kept[i], sprite) != 0)
		i++;
	return i;
}

bool sessions_is_kept(void *ctx, const char *sprite)
{
	const struct sessions *sessions = ctx;
	return find_kept(sessions, sprite) < sessions->kept_count;
}

int sessions_keep(struct sessions *sessions, const char *sprite)
{
	if (sessions_is_kept(sessions, sprite))
		return 0;
	if (sessions->kept_count == sessions->kept_room) {
		size_t room = sessions->kept_room ? 2 * sessions->kept_room : 16;
		void *kept = reallocarray(sessions->kept, room, sizeof *sessions->kept);
		if (!kept)
			return -ENOMEM;
		sessions->kept = kept;
		sessions->kept_room = room;
	}
	snprintf(sessions->kept[sessions->kept_count++], sizeof *sessions->kept, "%s", sprite);
	return 0;
}

static void drop_kept(struct sessions *sessions, size_t i)
{
	memmove(sessions->kept + i, sessions->kept + i + 1, (--sessions->kept_count - i) * sizeof *sessions->kept);
}

void sessions_tell_pool(struct sessions *sessions)
{
	const struct session_channel *channel;
	const struct session_holder *holder;
	size_t running = 0;
	DL_FOREACH (sessions->holders, holder)
		running++;
	DL_FOREACH (sessions->channels, channel)
		running++;
	pool_kept(sessions->options.pool, sessions->kept_count, running);
}

static bool is_among(const struct slice *names, size_t count, const char *sprite)
{
	for (size_t i = 0; i < count; i++)
		if (slice_equal(names[i], slice_str(sprite)))
			return true;
	return false;
}

bool sessions_is_held(const struct sessions *sessions, const char *sprite)
{
	const struct session_holder *holder;
	DL_FOREACH (sessions->holders, holder)
		if (strcmp(holder->sprite, sprite) == 0)
			return true;
	return false;
}

/* What has gone from the records without our doing was destroyed by another gateway, or Redis has lost it: then a command may still run in
 * it, which ends first. */
static void replace_kept(struct sessions *sessions, const struct session_store_due *due)
{
	for (size_t i = sessions->kept_count; i-- > 0;) {
		char sprite[PROVIDER_NAME_MAX + 1];
		memcpy(sprite, sessions->kept[i], sizeof sprite);
		if (is_among(due->kept, due->kept_count, sprite) || sessions_is_held(sessions, sprite))
			continue;
		drop_kept(sessions, i);
		session_channel_free(sessions_take_channel(sessions, sprite));
		pool_found(sessions->options.pool, sprite);
	}
	for (size_t i = 0; i < due->kept_count; i++) {
		char sprite[PROVIDER_NAME_MAX + 1];
		snprintf(sprite, sizeof sprite, "%.*s", SLICE_FMT(due->kept[i]));
		if (sessions_keep(sessions, sprite) < 0)
			log_error("sessions: out of memory: %s may be taken for nobody's", sprite);
	}
}

/* --- channels that nobody uses ------------------------------------------------ */

struct session_channel *session_channel_new(const char *sprite, struct sandbox *sandbox)
{
	struct session_channel *channel = calloc(1, sizeof *channel);
	if (!channel) {
		sandbox_close(sandbox);
		return NULL;
	}
	channel->sandbox = sandbox;
	snprintf(channel->sprite, sizeof channel->sprite, "%s", sprite);
	return channel;
}

void session_channel_free(struct session_channel *channel)
{
	if (!channel)
		return;
	sandbox_close(channel->sandbox);
	free(channel);
}

static void on_channel_lost(void *ctx, const char *reason UNUSED)
{
	struct session_channel *channel = ctx;
	struct sessions *sessions = channel->sessions;
	DL_DELETE(sessions->channels, channel);
	session_channel_free(channel);
	sessions_tell_pool(sessions);
}

struct session_channel *sessions_take_channel(struct sessions *sessions, const char *sprite)
{
	struct session_channel *channel;
	DL_FOREACH (sessions->channels, channel)
		if (strcmp(channel->sprite, sprite) == 0)
			break;
	if (!channel)
		return NULL;
	DL_DELETE(sessions->channels, channel);
	if (!channel->sandbox) {
		free(channel);
		return NULL;
	}
	sandbox_on_lost(channel->sandbox, NULL, NULL);
	return channel;
}

void sessions_put_channel(struct sessions *sessions, struct session_channel *channel)
{
	if (sessions->stopped || !sessions_is_kept(sessions, channel->sprite)) {
		session_channel_free(channel);
		return;
	}
	session_channel_free(sessions_take_channel(sessions, channel->sprite));
	channel->sessions = sessions;
	channel->since_ms = now_ms(sessions);
	DL_APPEND(sessions->channels, channel);
	sandbox_on_lost(channel->sandbox, on_channel_lost, channel);
}

/* What is closed is kept for as long as its Sprite may run. */
static void close_channels(struct sessions *sessions, uint64_t now)
{
	struct session_channel *channel, *next;
	bool any = false;
	DL_FOREACH_SAFE (sessions->channels, channel, next) {
		if (now >= channel->since_ms + CHANNEL_MS)
			sandbox_close(TAKE(channel->sandbox));
		if (now < channel->since_ms + CHANNEL_MS + LINGER_MS)
			continue;
		DL_DELETE(sessions->channels, channel);
		session_channel_free(channel);
		any = true;
	}
	if (any)
		sessions_tell_pool(sessions);
}

/* --- destroying what has ended ------------------------------------------------ */

static void end_removal(struct session_removal *removal)
{
	DL_DELETE(removal->sessions->removals, removal);
	free(removal);
}

static void removed(struct session_removal *removal)
{
	struct sessions *sessions = removal->sessions;
	size_t i = find_kept(sessions, removal->sprite);
	if (i < sessions->kept_count)
		drop_kept(sessions, i);
	sessions->counts.destroyed++;
	session_store_gone(sessions->store, removal->sprite);
	end_removal(removal);
	sessions_tell_pool(sessions);
}

static void on_destroyed(void *ctx, const struct provider_result *result)
{
	struct session_removal *removal = ctx;
	struct sessions *sessions = removal->sessions;
	if (!sessions) {
		free(removal);
		return;
	}
	uint64_t now = now_ms(sessions);
	removal->busy = false;
	removal->next_ms = now + (result->retry_after_ms > SESSIONS_CONFIRM_MS ? result->retry_after_ms : SESSIONS_CONFIRM_MS);
	if (result->code == PROVIDER_OK || (result->code == PROVIDER_GONE && removal->absent_ms)) {
		removed(removal);
	} else if (result->code == PROVIDER_GONE) {
		removal->absent_ms = now;
	} else {
		log_warning("sessions: destroy %s: %s", removal->sprite, result->detail);
		removal->absent_ms = 0;
	}
}

static void attempt(struct session_removal *removal)
{
	const struct provider *provider = &removal->sessions->options.provider;
	removal->next_ms = now_ms(removal->sessions) + SESSIONS_CONFIRM_MS;
	removal->busy = provider->ops->destroy(provider->self, removal->sprite, on_destroyed, removal) == 0;
}

static void begin_removal(struct sessions *sessions, struct slice name)
{
	struct session_removal *removal;
	DL_FOREACH (sessions->removals, removal)
		if (slice_equal(name, slice_str(removal->sprite)))
			return;
	removal = calloc(1, sizeof *removal);
	if (!removal)
		return; /* told again later */
	removal->sessions = sessions;
	removal->until_ms = now_ms(sessions) + LOCK_MS;
	snprintf(removal->sprite, sizeof removal->sprite, "%.*s", SLICE_FMT(name));
	DL_APPEND(sessions->removals, removal);
	session_channel_free(sessions_take_channel(sessions, removal->sprite));
	attempt(removal);
}

static void pass_removals(struct sessions *sessions)
{
	struct session_removal *removal, *next;
	uint64_t now = now_ms(sessions);
	DL_FOREACH_SAFE (sessions->removals, removal, next) {
		if (removal->busy || removal->next_ms > now)
			continue;
		if (removal->until_ms <= now)
			end_removal(removal);
		else
			attempt(removal);
	}
}

/* --- time --------------------------------------------------------------------- */

static void on_listed(void *ctx, const struct session_store_due *due)
{
	struct sessions *sessions = ctx;
	sessions->looking = false;
	if (sessions->stopped || due->code != SESSION_STORE_OK)
		return;
	replace_kept(sessions, due);
	for (size_t i = 0; i < due->due_count; i++)
		begin_removal(sessions, due->due[i]);
	sessions_tell_pool(sessions);
	if (sessions->known)
		return;
	sessions->known = true;
	sessions->options.on_known(sessions->options.ctx);
}

static void look(struct sessions *sessions)
{
	uint64_t now = now_ms(sessions);
	if (sessions->looking || sessions->look_ms > now)
		return;
	sessions->looking = session_store_look(sessions->store, LOCK_MS, on_listed, sessions) == 0;
	sessions->look_ms = now + (sessions->known ? LOOK_MS : TICK_MS);
}

static void on_tick(uv_timer_t *timer)
{
	struct sessions *sessions = timer->data;
	uint64_t now = now_ms(sessions);
	look(sessions);
	pass_removals(sessions);
	close_channels(sessions, now);
}

int sessions_release(struct sessions *sessions, const struct session_ref *ref, bool fresh, session_store_done done, void *ctx)
{
	return session_store_release(sessions->store, ref, fresh, done, ctx);
}

/* --- life --------------------------------------------------------------------- */

struct sessions *sessions_new(const struct sessions_options *options)
{
	struct sessions *sessions = calloc(1, sizeof *sessions);
	if (!sessions)
		return NULL;
	sessions->options = *options;
	const struct session_store_options store = {.loop = options->loop,
						    .redis_url = options->redis_url,
						    .timeout_ms = options->timeout_ms,
						    .scope = options->scope,
						    .idle_ms = options->idle_ms,
						    .age_ms = options->age_ms,
						    .on_command = options->on_command,
						    .command_ctx = options->command_ctx};
	sessions->store = session_store_new(&store);
	if (!sessions->store) {
		free(sessions);
		return NULL;
	}
	uv_timer_init(options->loop, &sessions->timer);
	sessions->timer.data = sessions;
	return sessions;
}

void sessions_start(struct sessions *sessions, struct pool *pool)
{
	sessions->options.pool = pool;
	uv_timer_start(&sessions->timer, on_tick, 1, TICK_MS);
}

void sessions_stop(struct sessions *sessions)
{
	if (sessions->stopped)
		return;
	sessions->stopped = true;
	uv_timer_stop(&sessions->timer);
	close_channels(sessions, UINT64_MAX);
}

static void on_part_freed(void *ctx)
{
	struct sessions *sessions = ctx;
	if (--sessions->closing > 0)
		return;
	sessions->on_freed(sessions->freed_ctx);
	free(sessions->kept);
	free(sessions);
}

static void on_timer_closed(uv_handle_t *handle)
{
	on_part_freed(handle->data);
}

void sessions_free(struct sessions *sessions, void (*on_freed)(void *ctx), void *ctx)
{
	struct session_removal *removal, *next;
	struct session_channel *channel, *next_channel;
	struct session_errand *errand, *next_errand;
	sessions->on_freed = on_freed;
	sessions->freed_ctx = ctx;
	sessions->stopped = true;
	sessions->closing = 2;
	DL_FOREACH_SAFE (sessions->removals, removal, next) {
		DL_DELETE(sessions->removals, removal);
		removal->sessions = NULL;
		if (!removal->busy)
			free(removal);
	}
	DL_FOREACH_SAFE (sessions->errands, errand, next_errand) {
		DL_DELETE(sessions->errands, errand);
		errand->sessions = NULL;
		if (!errand->is_awaited)
			free(errand);
	}
	DL_FOREACH_SAFE (sessions->channels, channel, next_channel)
		session_channel_free(channel);
	uv_close((uv_handle_t *)&sessions->timer, on_timer_closed);
	session_store_free(sessions->store, on_part_freed, sessions);
}

void sessions_counts(const struct sessions *sessions, struct sessions_counts *counts)
{
	*counts = sessions->counts;
	counts->kept = sessions->kept_count;
}
