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
	uv_close((uv_handle_t *)&work->pause, on_handle_closed);
	uv_close((uv_handle_t *)&work->timeout, on_handle_closed);
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
