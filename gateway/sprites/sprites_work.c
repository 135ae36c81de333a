#include "gateway/sprites/sprites_work.h"

#include <stdio.h>
#include <stdlib.h>

struct work *work_new(struct sprites_provider *provider, const char *name, provider_done done, void *ctx)
{
	struct work *work = calloc(1, sizeof *work);
	if (!work)
		return NULL;
	work->provider = provider;
	work->done = done;
	work->ctx = ctx;
	snprintf(work->name, sizeof work->name, "%s", name);
	work->link = &provider->works;
	work->next = provider->works;
	if (work->next)
		work->next->link = &work->next;
	provider->works = work;
	return work;
}

static void dispose(struct work *work)
{
	free(work->policy);
	free(work);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct work *work = handle->data;
	if (!--work->handles)
		dispose(work);
}

/* Older ones come after it. */
static bool has_turn(const struct work *work)
{
	const struct work *older = work->next;
	while (older && !(older->handles && strcmp(older->name, work->name) == 0))
		older = older->next;
	return !older;
}

/* Not at once: `done` of the one before comes first, and may free the provider. */
static void pass_turn(struct sprites_provider *provider, const char *name)
{
	for (struct work *work = provider->works; work; work = work->next)
		if (work->waiting && strcmp(work->name, name) == 0 && has_turn(work)) {
			work->waiting = false;
			uv_timer_start(&work->pause, work->on_turn, 0, 0);
		}
}

void work_free(struct work *work)
{
	*work->link = work->next;
	if (work->next)
		work->next->link = work->link;
	sandbox_close(work->sandbox);
	if (!work->handles) {
		dispose(work);
		return;
	}
	pass_turn(work->provider, work->name);
	uv_close((uv_handle_t *)&work->pause, on_handle_closed);
	uv_close((uv_handle_t *)&work->timeout, on_handle_closed);
}

static void on_timeout(uv_timer_t *timer)
{
	struct work *work = timer->data;
	uv_timer_stop(&work->pause);
	uv_timer_stop(&work->timeout);
	if (work->verdict.code == PROVIDER_OK)
		answers_fail(&work->verdict, PROVIDER_UNAVAILABLE, "prepare: it took too long");
	work_tell(work, PROVIDER_UNAVAILABLE);
}

bool work_take_turn(struct work *work, uv_timer_cb on_turn, uint64_t timeout_ms)
{
	uv_timer_init(work->provider->loop, &work->pause);
	uv_timer_init(work->provider->loop, &work->timeout);
	work->pause.data = work->timeout.data = work;
	work->handles = 2;
	work->on_turn = on_turn;
	work->waiting = !has_turn(work);
	uv_timer_start(&work->timeout, on_timeout, timeout_ms, 0);
	return !work->waiting;
}

void work_abandon(struct work *work)
{
	if (work->handles && !work->told && !work->policy)
		uv_timer_start(&work->timeout, on_timeout, 0, 0);
}

void work_tell(struct work *work, enum provider_code code)
{
	struct provider_result result = {
		.code = code,
		.retry_after_ms = work->verdict.retry_after_ms,
		.limit = work->verdict.limit,
		.unanswered = work->verdict.status == 0 || (work->verdict.status >= 502 && work->verdict.status <= 504),
		.sandbox = code == PROVIDER_OK ? TAKE(work->sandbox) : NULL,
		.detail = work->verdict.detail,
	};
	provider_done done = work->done;
	void *ctx = work->ctx;
	struct verdict verdict = work->verdict;
	result.detail = verdict.detail;
	if (work->calling) {
		work->told = true;
		sandbox_close(TAKE(work->sandbox));
	} else {
		work_free(work);
	}
	done(ctx, &result);
}

void work_fail(struct work *work, const char *detail, uint64_t retry_after_ms)
{
	answers_fail(&work->verdict, PROVIDER_UNAVAILABLE, detail);
	work->verdict.retry_after_ms = retry_after_ms;
	work_tell(work, PROVIDER_UNAVAILABLE);
}

bool work_valid_name(const char *name)
{
	size_t len = strlen(name);
	return len > 0 && len <= PROVIDER_NAME_MAX;
}

int work_started(struct work *work, int r)
{
	if (r < 0)
		work_free(work);
	return r;
}

static void on_listed(void *ctx, const char *name, bool ours UNUSED)
{
	struct work *work = ctx;
	work->listed |= strcmp(name, work->name) == 0;
}

int work_ask_list(struct work *work, client_done done)
{
	work->listed = false;
	return client_list(work->provider->client, work->name, on_listed, done, work);
}
