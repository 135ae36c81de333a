#include "gateway/status.h"

#include "gateway/base/base64.h"
#include "gateway/base/log.h"
#include "gateway/base/sha256.h"
#include "gateway/endpoint/reply.h"
#include "gateway/http/trace_of.h"
#include "gateway/status_page.h"
#include "gateway/status_view.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#define EVENT_MS 1000
#define COMMANDS "/status/commands/"

struct watcher {
	struct status *status;
	struct http_request *request; /* NULL when its client has left */
	struct watcher *prev, *next;
};

struct status {
	struct admin_options options;
	struct status_view *view;
	struct buf policy; /* Content-Security-Policy of the page */
	uv_timer_t timer;
	unsigned ticks;
	struct watcher *watchers;
	size_t watcher_count;
	void (*on_freed)(void *ctx);
	void *freed_ctx;
};

/* --- the page ------------------------------------------------------------------ */

/* What is between <name> and </name>: there is one of each in the page. */
static struct slice element(const char *open, const char *close)
{
	struct slice page = slice_of(status_page, status_page_len);
	const char *begin = memmem(page.data, page.len, open, strlen(open)), *end = memmem(page.data, page.len, close, strlen(close));
	return begin && end ? slice_of(begin + strlen(open), (size_t)(end - begin) - strlen(open)) : (struct slice){0};
}

static unsigned digit(char c)
{
	return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

static int put_hash(struct buf *out, struct slice text)
{
	CLEANUP(sha256_deinit) struct sha256 digest = {0};
	char hex[SHA256_HEX + 1], bytes[SHA256_HEX / 2];
	int r = sha256_init(&digest);
	if (r == 0)
		r = sha256_feed(&digest, text);
	if (r == 0)
		r = sha256_hex(&digest, hex);
	for (size_t i = 0; r == 0 && i < sizeof bytes; i++)
		bytes[i] = (char)(digit(hex[2 * i]) << 4 | digit(hex[2 * i + 1]));
	if (r == 0)
		r = buf_append(out, SLICE("'sha256-"));
	if (r == 0)
		r = base64_encode(out, slice_of(bytes, sizeof bytes));
	return r < 0 ? r : buf_append_char(out, '\'');
}

static int write_policy(struct buf *out)
{
	int r = buf_append(out,
			   SLICE("default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; connect-src 'self'; "
				 "img-src data:; style-src "));
	if (r == 0)
		r = put_hash(out, element("<style>", "</style>"));
	if (r == 0)
		r = buf_append(out, SLICE("; script-src "));
	return r < 0 ? r : put_hash(out, element("<script>", "</script>"));
}

static int respond_page(struct status *status, struct http_request *request)
{
	const struct http_field ours[] = {{SLICE("Content-Type"), SLICE("text/html; charset=utf-8")},
					  {SLICE("Content-Security-Policy"), buf_peek(&status->policy)},
					  {SLICE("Cache-Control"), SLICE("no-store")},
					  {SLICE("Referrer-Policy"), SLICE("no-referrer")},
					  {SLICE("X-Content-Type-Options"), SLICE("nosniff")}};
	struct http_fields fields = {0};
	for (size_t i = 0; i < ARRAY_LEN(ours); i++)
		if (http_fields_add(&fields, ours[i].name, ours[i].value) != 0)
			return -E2BIG;
	return http_request_respond(request, 200, &fields, slice_of(status_page, status_page_len));
}

static int respond_problem(struct http_request *request, unsigned status, const char *code, struct slice detail, const char *allow)
{
	struct http_fields fields = {0};
	struct http_problem problem = {.status = status, .code = code, .detail = detail};
	if (allow && http_fields_add(&fields, SLICE("Allow"), slice_str(allow)) != 0)
		return -E2BIG;
	if (status == 401 && http_fields_add(&fields, SLICE("WWW-Authenticate"), SLICE("Bearer realm=\"status\"")) != 0)
		return -E2BIG;
	if (status == 503 && http_fields_add(&fields, SLICE("Retry-After"), SLICE("10")) != 0)
		return -E2BIG;
	return http_request_respond_problem(request, &problem, &fields);
}

/* --- events ---------------------------------------------------------------------- */

static int write_event(struct status *status, struct buf *out)
{
	struct admin_health health = {0};
	status->options.collect(status->options.ctx);
	status->options.health(status->options.ctx, &health);
	struct status_now now = {.instance = status->options.instance,
				 .health = &health,
				 .agent = status->options.agent(status->options.ctx),
				 .may_cancel = status->options.token->len > 0};
	if (!now.agent)
		return 0; /* it has ended, and the gateway will in a moment */
	int r = buf_append(out, SLICE("data:"));
	if (r == 0)
		r = status_view_write(status->view, &now, out);
	return r < 0 ? r : buf_append(out, SLICE("\n\n"));
}

static void send_event(struct watcher *watcher, struct slice event)
{
	if (!event.len || !watcher->request || http_request_room(watcher->request) < event.len)
		return;
	const struct log_subject subject = http_subject_of(http_request_head(watcher->request));
	if (http_request_write(watcher->request, event) < event.len)
		log_error_of(&subject, "status: half an event was sent");
}

static void on_tick(uv_timer_t *timer)
{
	struct status *status = timer->data;
	CLEANUP(buf_deinit) struct buf event = BUF_MAX(STATUS_MAX);
	struct watcher *watcher;
	if (status->ticks++ % STATUS_SAMPLE_S == 0) {
		status->options.collect(status->options.ctx);
		status_view_sample(status->view);
	}
	if (!status->watchers)
		return;
	if (write_event(status, &event) < 0) {
		log_error("status: an event could not be made");
		return;
	}
	DL_FOREACH (status->watchers, watcher)
		send_event(watcher, buf_peek(&event));
}

static void on_gone(void *ctx)
{
	struct watcher *watcher = ctx;
	watcher->request = NULL;
}

static void on_finished(void *ctx, const struct http_summary *summary UNUSED)
{
	struct watcher *watcher = ctx;
	DL_DELETE(watcher->status->watchers, watcher);
	watcher->status->watcher_count--;
	free(watcher);
}

static const struct http_sink sink = {.on_gone = on_gone, .on_finished = on_finished};

static int watch(struct status *status, struct http_request *request)
{
	struct http_fields fields = {0};
	CLEANUP(buf_deinit) struct buf event = BUF_MAX(STATUS_MAX);
	if (status->watcher_count == STATUS_WATCHERS)
		return respond_problem(request, 503, "temporary-reduced-capacity", SLICE("Too many pages are being watched."), NULL);
	if (http_fields_add(&fields, SLICE("Content-Type"), SLICE("text/event-stream")) != 0 ||
	    http_fields_add(&fields, SLICE("Cache-Control"), SLICE("no-store")) != 0)
		return -E2BIG;
	struct watcher *watcher = calloc(1, sizeof *watcher);
	int r = watcher ? write_event(status, &event) : -ENOMEM;
	if (r < 0) {
		free(watcher);
		return r;
	}
	*watcher = (struct watcher){.status = status, .request = request};
	DL_APPEND(status->watchers, watcher);
	status->watcher_count++;
	http_request_attach(request, &sink, watcher);
	r = http_request_respond_stream(request, 200, &fields, HTTP_LENGTH_UNKNOWN);
	if (r == 0)
		send_event(watcher, buf_peek(&event));
	return r;
}

/* --- cancelling -------------------------------------------------------------------- */

static int cancel(struct status *status, struct http_request *request, struct slice exec_id)
{
	struct exec_agent *agent = status->options.agent(status->options.ctx);
	struct slice token;
	if (!status->options.token->len)
		return respond_problem(request, 403, "insufficient-scope", SLICE("ADMIN_TOKEN is not set: nobody may cancel here."), NULL);
	if (exec_authorization(http_request_head(request)->fields, &token) != 0)
		return respond_problem(request, 401, "missing-token", SLICE("The admin token is needed, as a bearer token."), NULL);
	if (!secret_equal(status->options.token, token)) {
		const struct log_subject subject = http_subject_of(http_request_head(request));
		log_warning_of(&subject, "status: a cancellation with a wrong token was refused");
		return respond_problem(request, 401, "invalid-token", SLICE("This is not the admin token."), NULL);
	}
	char by[80];
	snprintf(by, sizeof by, "admin:%.*s", SLICE_FMT(http_request_head(request)->peer));
	if (!agent || !exec_agent_kill(agent, exec_id, by))
		return respond_problem(request, 404, "exec-not-found", SLICE("No such command runs at this gateway."), NULL);
	struct http_fields fields = {0};
	if (http_fields_add(&fields, SLICE("Content-Type"), SLICE("application/json")) != 0 ||
	    http_fields_add(&fields, SLICE("Cache-Control"), SLICE("no-store")) != 0)
		return -E2BIG;
	return http_request_respond(request, 202, &fields, SLICE("{\"ok\":true,\"state\":\"canceling\"}\n"));
}

/* --- life -------------------------------------------------------------------------- */

static int answer(struct status *status, struct http_request *request, bool *taken)
{
	const struct http_head *head = http_request_head(request);
	bool gets = slice_equal(head->method, SLICE("GET")), heads = slice_equal(head->method, SLICE("HEAD"));
	*taken = true;
	if (slice_has_prefix(head->path, SLICE(COMMANDS))) {
		if (slice_equal(head->method, SLICE("DELETE")))
			return cancel(status, request, slice_from(head->path, sizeof COMMANDS - 1));
		return respond_problem(request, 405, "method-not-allowed", SLICE("Allowed here: DELETE."), "DELETE");
	}
	if (slice_equal(head->path, SLICE("/status/events"))) {
		if (gets)
			return watch(status, request);
		return respond_problem(request, 405, "method-not-allowed", SLICE("Allowed here: GET."), "GET");
	}
	if ((slice_equal(head->path, SLICE("/")) || slice_equal(head->path, SLICE("/status"))) && (gets || heads))
		return respond_page(status, request);
	*taken = false;
	return 0;
}

bool status_handle(struct status *status, struct http_request *request)
{
	const struct log_subject subject = http_subject_of(http_request_head(request));
	bool taken;
	if (answer(status, request, &taken) < 0)
		log_error_of(&subject, "status: the answer could not be sent");
	return taken;
}

struct status *status_new(const struct admin_options *options)
{
	struct status *status = calloc(1, sizeof *status);
	if (!status)
		return NULL;
	status->options = *options;
	buf_init(&status->policy, 1024);
	status->view = status_view_new(options->metrics);
	if (!status->view || write_policy(&status->policy) < 0) {
		status_view_free(status->view);
		buf_deinit(&status->policy);
		free(status);
		return NULL;
	}
	uv_timer_init(options->loop, &status->timer);
	status->timer.data = status;
	uv_timer_start(&status->timer, on_tick, 0, EVENT_MS);
	return status;
}

static void on_closed(uv_handle_t *handle)
{
	struct status *status = handle->data;
	void (*on_freed)(void *ctx) = status->on_freed;
	void *ctx = status->freed_ctx;
	status_view_free(status->view);
	buf_deinit(&status->policy);
	free(status);
	on_freed(ctx);
}

void status_free(struct status *status, void (*on_freed)(void *ctx), void *ctx)
{
	status->on_freed = on_freed;
	status->freed_ctx = ctx;
	uv_close((uv_handle_t *)&status->timer, on_closed);
}
