#include "gateway/admin.h"

#include "gateway/base/log.h"
#include "gateway/http/trace_of.h"
#include "gateway/status.h"

#include <stdlib.h>

#define MAX_PAGE (16UL * 1024 * 1024) /* what Fly's scraper reads at most */

struct admin {
	struct admin_options options;
	struct http_server *server;
	struct status *status;
	void (*on_stopped)(void *ctx);
	void *stopped_ctx;
};

static int respond(struct http_request *request, unsigned status, const char *type, struct buf *body)
{
	struct http_fields fields = {0};
	if (http_fields_add(&fields, SLICE("Content-Type"), slice_str(type)) != 0 ||
	    http_fields_add(&fields, SLICE("Cache-Control"), SLICE("no-store")) != 0)
		return -1;
	return http_request_respond_buf(request, status, &fields, body);
}

static int respond_metrics(struct admin *admin, struct http_request *request)
{
	struct slice accept = http_fields_value(http_request_head(request)->fields, SLICE("Accept"));
	bool openmetrics = accept.len && memmem(accept.data, accept.len, "application/openmetrics-text", 28);
	CLEANUP(buf_deinit) struct buf body = BUF_MAX(MAX_PAGE);
	admin->options.collect(admin->options.ctx);
	int r = metrics_render(admin->options.metrics, openmetrics, &body);
	return r < 0 ? r : respond(request, 200, openmetrics ? METRICS_OPENMETRICS_TYPE : METRICS_TEXT_TYPE, &body);
}

static int respond_ready(struct admin *admin, struct http_request *request)
{
	struct admin_health health = {0};
	CLEANUP(buf_deinit) struct buf body = BUF_MAX(1024);
	admin->options.health(admin->options.ctx, &health);
	bool ready = !health.draining && health.filled;
	int r = buf_printf(&body,
			   "{\"ok\":%s,\"draining\":%s,\"redis\":\"%s\",\"datasette\":\"%s\","
			   "\"pool\":{\"hot\":%zu,\"leased\":%zu,\"target\":%zu}}\n",
			   ready ? "true" : "false", health.draining ? "true" : "false", health.redis_up ? "up" : "down",
			   health.datasette_up ? "up" : "down", health.hot, health.leased, health.hot_target);
	return r < 0 ? r : respond(request, ready ? 200 : 503, "application/json", &body);
}

static int respond_live(struct http_request *request)
{
	CLEANUP(buf_deinit) struct buf body = BUF_MAX(64);
	int r = buf_append(&body, SLICE("{\"ok\":true}\n"));
	return r < 0 ? r : respond(request, 200, "application/json", &body);
}

static int respond_problem(struct http_request *request, unsigned status, const char *code, struct slice detail)
{
	struct http_fields fields = {0};
	struct http_problem problem = {.status = status, .code = code, .detail = detail};
	if (status == 405 && http_fields_add(&fields, SLICE("Allow"), SLICE("GET, HEAD")) != 0)
		return -1;
	return http_request_respond_problem(request, &problem, &fields);
}

static int answer(struct admin *admin, struct http_request *request)
{
	const struct http_head *head = http_request_head(request);
	if (!slice_equal(head->method, SLICE("GET")) && !slice_equal(head->method, SLICE("HEAD")))
		return respond_problem(request, 405, "method-not-allowed", SLICE("Allowed here: GET, HEAD."));
	if (slice_equal(head->path, SLICE("/metrics")))
		return respond_metrics(admin, request);
	if (slice_equal(head->path, SLICE("/health/ready")))
		return respond_ready(admin, request);
	if (slice_equal(head->path, SLICE("/health/live")))
		return respond_live(request);
	return respond_problem(request, 404, "not-found", SLICE("Here are /, /metrics, /health/live and /health/ready."));
}

static void on_request(void *ctx, struct http_request *request)
{
	struct admin *admin = ctx;
	const struct log_subject subject = http_subject_of(http_request_head(request));
	if (!status_handle(admin->status, request) && answer(admin, request) < 0)
		log_error_of(&subject, "admin: the answer could not be sent");
}

struct admin *admin_new(const struct admin_options *options)
{
	struct admin *admin = calloc(1, sizeof *admin);
	if (!admin)
		return NULL;
	admin->options = *options;
	struct http_server_options server;
	http_server_defaults(&server);
	server.loop = options->loop;
	server.listen_fd = options->listen_fd;
	server.max_connections = 64;
	server.max_in_flight = 64;
	server.on_request = on_request;
	server.ctx = admin;
	/* A start-up that fails ends the process: what was made is left to that. */
	admin->status = status_new(options);
	admin->server = admin->status ? http_server_new(&server) : NULL;
	return admin->server ? admin : NULL;
}

static void on_status_freed(void *ctx)
{
	struct admin *admin = ctx;
	admin->on_stopped(admin->stopped_ctx);
	free(admin);
}

static void on_server_stopped(void *ctx)
{
	struct admin *admin = ctx;
	status_free(admin->status, on_status_freed, admin);
}

void admin_stop(struct admin *admin, void (*on_stopped)(void *ctx), void *ctx)
{
	admin->on_stopped = on_stopped;
	admin->stopped_ctx = ctx;
	http_server_stop(admin->server, on_server_stopped, admin);
}
