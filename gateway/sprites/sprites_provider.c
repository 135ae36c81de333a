#include "gateway/sprites/sprites_work.h"

#include "gateway/base/log.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_UNSENT ((size_t)1 << 20)

/* --- create and list --- */

static void on_simple(void *ctx, const struct verdict *verdict)
{
	struct work *work = ctx;
	work->verdict = *verdict;
	work_tell(work, verdict->code);
}

/* The list of a client that is refused as a whole (404) says nothing about Sprites. */
static void on_list(void *ctx, const struct verdict *verdict)
{
	struct work *work = ctx;
	work->verdict = *verdict;
	work_tell(work, verdict->code == PROVIDER_GONE ? PROVIDER_INVALID : verdict->code);
}

static int create(void *self, const char *name, provider_done done, void *ctx)
{
	struct sprites_provider *provider = self;
	struct work *work = work_valid_name(name) ? work_new(provider, name, done, ctx) : NULL;
	if (!work)
		return work_valid_name(name) ? -ENOMEM : -EINVAL;
	return work_started(work, client_create(provider->client, name, on_simple, work));
}

static void on_found(void *ctx, const char *name, bool ours)
{
	struct work *work = ctx;
	work->found(work->ctx, name, ours);
}

static int list(void *self, const char *prefix, provider_found found, provider_done done, void *ctx)
{
	struct sprites_provider *provider = self;
	struct work *work = work_new(provider, prefix, done, ctx);
	if (!work)
		return -ENOMEM;
	work->found = found;
	return work_started(work, client_list(provider->client, prefix, on_found, on_list, work));
}

/* --- destroy --- */

static void on_destroy_listed(void *ctx, const struct verdict *verdict)
{
	struct work *work = ctx;
	if (verdict->code != PROVIDER_OK)
		work_fail(work, "delete: the Sprite may be gone, but the list could not be read", verdict->retry_after_ms);
	else if (work->listed)
		work_fail(work, "delete: the API denies the Sprite, but it is on the list", 0);
	else
		work_tell(work, PROVIDER_GONE);
}

static void confirm_absence(struct work *work)
{
	if (work_ask_list(work, on_destroy_listed) < 0)
		work_fail(work, "delete: the list could not be asked for", 0);
}

static void on_destroy_get(void *ctx, const struct verdict *verdict)
{
	struct work *work = ctx;
	if (verdict->code == PROVIDER_GONE || verdict->missing_quirk)
		confirm_absence(work);
	else
		work_fail(work, "delete: what became of the Sprite could not be asked for", verdict->retry_after_ms);
}

static void on_deleted(void *ctx, const struct verdict *verdict)
{
	struct work *work = ctx;
	work->verdict = *verdict;
	if (verdict->code == PROVIDER_GONE)
		confirm_absence(work);
	else if (!verdict->missing_quirk)
		work_tell(work, verdict->code);
	else if (client_get(work->provider->client, work->name, on_destroy_get, work) < 0)
		work_tell(work, PROVIDER_UNAVAILABLE);
}

static int destroy(void *self, const char *name, provider_done done, void *ctx)
{
	struct sprites_provider *provider = self;
	struct work *work = work_valid_name(name) ? work_new(provider, name, done, ctx) : NULL;
	if (!work)
		return work_valid_name(name) ? -ENOMEM : -EINVAL;
	baselines_drop(&provider->baselines, name);
	return work_started(work, client_delete(provider->client, name, on_deleted, work));
}

/* --- prepare --- */

static int prepare(void *self, const char *name, struct provider_fence fence, provider_done done, void *ctx)
{
	struct sprites_provider *provider = self;
	enum preparation_kind kind = provider->options.restorable ? PREPARATION_RESTORABLE : PREPARATION_NEW;
	return work_prepare(self, kind, name, fence, done, ctx);
}

static int wake(void *self, const char *name, struct provider_fence fence, provider_done done, void *ctx)
{
	return work_prepare(self, PREPARATION_WAKE, name, fence, done, ctx);
}

/* As a new one: what ran in it may have opened its network, and has no right to a checkpoint. */
static int resume(void *self, const char *name, provider_done done, void *ctx)
{
	return work_prepare(self, PREPARATION_NEW, name, (struct provider_fence){0}, done, ctx);
}

static int restore(void *self, const char *name, struct provider_fence fence, provider_done done, void *ctx)
{
	return work_prepare(self, PREPARATION_RESTORED, name, fence, done, ctx);
}

/* --- opening a network --- */

static void on_open_checked(void *ctx, const struct verdict *verdict)
{
	struct work *work = ctx;
	work->verdict = *verdict;
	work_tell(work, verdict->code);
}

static void on_opened(void *ctx, const struct verdict *verdict)
{
	struct work *work = ctx;
	work->verdict = *verdict;
	if (verdict->code != PROVIDER_OK)
		work_tell(work, verdict->code);
	else if (client_check_open(work->provider->client, work->name, work->policy, on_open_checked, work) < 0)
		work_fail(work, "open: the network policy could not be read back", 0);
}

static int begin_opening(struct work *work)
{
	uv_timer_stop(&work->timeout);
	return client_open_network(work->provider->client, work->name, work->policy, on_opened, work);
}

static void on_turn_to_open(uv_timer_t *timer)
{
	struct work *work = timer->data;
	if (begin_opening(work) < 0)
		work_fail(work, "open: the network policy could not be set", 0);
}

static int open_network(void *self, const char *name, const char *profile, provider_done done, void *ctx)
{
	struct sprites_provider *provider = self;
	CLEANUP(buf_deinit) struct buf policy = BUF_MAX(64 * 1024);
	int r = work_valid_name(name) ? answers_open_policy(slice_str(profile), &policy) : -EINVAL;
	if (r < 0)
		return r;
	struct work *work = work_new(provider, name, done, ctx);
	if (!work)
		return -ENOMEM;
	work->policy = buf_take_string(&policy);
	if (!work->policy)
		return work_started(work, -ENOMEM);
	return work_take_turn(work, on_turn_to_open, provider->options.prepare_timeout_ms) ? work_started(work, begin_opening(work)) : 0;
}

static void abandon_preparations(void *self)
{
	struct sprites_provider *provider = self;
	for (struct work *work = provider->works; work; work = work->next)
		work_abandon(work);
}

static const struct provider_ops ops = {.create = create,
					.prepare = prepare,
					.wake = wake,
					.resume = resume,
					.restore = restore,
					.open_network = open_network,
					.abandon = abandon_preparations,
					.destroy = destroy,
					.list = list};

struct provider sprites_provider_interface(struct sprites_provider *provider)
{
	return (struct provider){.ops = &ops, .self = provider, .recipe = "closed network; bash; shim"};
}

/* --- life --- */

static void set_default(unsigned *value, unsigned otherwise)
{
	if (!*value)
		*value = otherwise;
}

static void set_defaults(struct sprites_provider_options *options)
{
	set_default(&options->connect_timeout_ms, 10000);
	set_default(&options->call_timeout_ms, 30000);
	set_default(&options->handshake_timeout_ms, 30000);
	set_default(&options->ping_interval_ms, 15000);
	set_default(&options->dead_after_ms, 45000);
	set_default(&options->keepalive_ms, 20000);
	set_default(&options->keepalive_timeout_ms, 5000);
	set_default(&options->complete_timeout_ms, 2000);
	set_default(&options->first_run_timeout_ms, 30000);
	set_default(&options->prepare_timeout_ms, 60000);
	if (!options->max_calls)
		options->max_calls = 256;
}

/* Such bytes would end up in a header line. */
static bool valid_token(struct slice token)
{
	for (size_t i = 0; i < token.len; i++) {
		unsigned char c = (unsigned char)token.data[i];
		if (c <= 0x20 || c >= 0x7f)
			return false;
	}
	return token.len > 0 && token.len <= 4096;
}

static struct slice without_slash(struct slice url)
{
	while (url.len && url.data[url.len - 1] == '/')
		url.len--;
	return url;
}

static void on_killed(void *ctx, const struct verdict *verdict)
{
	struct work *work = ctx;
	/* A session that has ended meanwhile is what was asked for; whoever signals also waits for the end and has a deadline. */
	if (verdict->code != PROVIDER_OK && verdict->code != PROVIDER_GONE)
		log_warning_of(&work->subject, "sprites: a signal was not delivered: %s", verdict->detail);
	work_free(work);
}

static int kill_session(void *ctx, const char *name, const char *session, const char *signal, const struct log_subject *subject)
{
	struct sprites_provider *provider = ctx;
	struct work *work = work_new(provider, name, NULL, NULL);
	if (!work)
		return -ENOMEM;
	work->subject = *subject;
	return work_started(work, client_kill(provider->client, name, session, signal, on_killed, work));
}

static int make_client(struct sprites_provider *provider, struct curl_driver *driver, struct slice base_url)
{
	const struct sprites_provider_options *options = &provider->options;
	CLEANUP(free_ptr) char *url = slice_dup(base_url);
	if (!url)
		return -ENOMEM;
	struct client_options client_options = {
		.driver = driver,
		.base_url = url,
		.label = provider->options.label,
		.token = &provider->token,
		.connect_timeout_ms = options->connect_timeout_ms,
		.timeout_ms = options->call_timeout_ms,
		.max_calls = options->max_calls,
		.observer = options->observer,
	};
	provider->client = client_new(&client_options);
	if (!provider->client || asprintf(&provider->ws_url, "ws%s", url + strlen("http")) < 0)
		return -ENOMEM;
	provider->sandbox_options = (struct sandbox_options){
		.socket = {.loop = provider->loop,
			   .driver = driver,
			   .token = &provider->token,
			   .connect_timeout_ms = options->connect_timeout_ms,
			   .handshake_timeout_ms = options->handshake_timeout_ms,
			   .ping_interval_ms = options->ping_interval_ms,
			   .dead_after_ms = options->dead_after_ms,
			   .max_unsent = MAX_UNSENT,
			   .observer = &provider->options.observer},
		.ws_url = provider->ws_url,
		.keepalive_ms = options->keepalive_ms == UINT_MAX ? 0 : options->keepalive_ms,
		.keepalive_timeout_ms = options->keepalive_timeout_ms,
		.ahead = options->ahead,
		.complete_timeout_ms = options->complete_timeout_ms,
		.kill = kill_session,
		.kill_ctx = provider,
	};
	return 0;
}

int sprites_provider_new(uv_loop_t *loop, struct curl_driver *driver, const char *base_url, const struct secret *token,
			 const struct sprites_provider_options *options, struct sprites_provider **out)
{
	struct slice url = without_slash(slice_str(base_url));
	bool http = slice_has_prefix(url, SLICE("http://")) || slice_has_prefix(url, SLICE("https://"));
	if (!http || url.len > 512 || !valid_token(secret_peek(token)))
		return -EINVAL;
	struct sprites_provider *provider = calloc(1, sizeof *provider);
	if (!provider)
		return -ENOMEM;
	provider->loop = loop;
	if (options)
		provider->options = *options;
	set_defaults(&provider->options);
	int r = secret_init(&provider->token, secret_peek(token));
	if (r == 0)
		r = make_client(provider, driver, url);
	if (r < 0) {
		sprites_provider_free(provider);
		return r;
	}
	*out = provider;
	return 0;
}

/* Its call is gone: whether it reached the API is not known. */
static void abandon(struct work *work)
{
	struct provider_result result = {.code = PROVIDER_UNAVAILABLE, .detail = "the gateway stops"};
	provider_done done = work->told ? NULL : work->done;
	void *ctx = work->ctx;
	work_free(work);
	if (done)
		done(ctx, &result);
}

void sprites_provider_free(struct sprites_provider *provider)
{
	if (!provider)
		return;
	client_free(provider->client);
	while (provider->works)
		abandon(provider->works);
	baselines_deinit(&provider->baselines);
	secret_deinit(&provider->token);
	free(provider->ws_url);
	free(provider);
}
