#include "gateway/endpoint/call.h"

#include "gateway/endpoint/pages.h"
#include "gateway/mcp/tools.h"

#include <stdlib.h>
#include <utlist.h>

#define LEASES_BACK_MS 1000 /* longest wait for Redis to take leases back at the end */
#define LEASES_POLL_MS 10

static void maybe_freed(struct exec_endpoint *endpoint);

/* NULL when its client has left and everything was said. */
static struct call *find(struct exec_endpoint *endpoint, const char *exec_id)
{
	struct call *call;
	DL_FOREACH (endpoint->calls, call)
		if (strcmp(call->exec_id, exec_id) == 0)
			break;
	return call;
}

static void take_piece(struct exec_endpoint *endpoint, struct exec_piece *piece)
{
	struct call *call = find(endpoint, piece->message.exec_id);
	if (call && piece->message.kind == EXEC_BATCH)
		call_batch(call, piece);
	else if (call)
		call_piece(call, piece);
	else
		exec_piece_free(piece);
}

static void take_credit(struct exec_endpoint *endpoint, struct exec_credit *credit)
{
	struct call *call = find(endpoint, credit->message.exec_id);
	if (call)
		call_fetch_credit(call, credit->bytes);
	free(credit);
}

static void take_job(struct exec_endpoint *endpoint, struct exec_job *job)
{
	struct call *call = find(endpoint, job->message.exec_id);
	metrics_sub(endpoint->options.metrics, METRIC_EXEC_LEASES, METRICS_NONE, 1);
	endpoint->jobs_out--;
	if (call) {
		DL_DELETE(endpoint->calls, call);
		call->with_agent = false;
		call_answer(call, job);
	}
	exec_job_free(job);
	maybe_freed(endpoint);
}

static void on_message(void *ctx, struct mailbox_item *item)
{
	struct exec_message *message = CONTAINER_OF(item, struct exec_message, item);
	if (message->kind == EXEC_PIECE || message->kind == EXEC_BATCH)
		take_piece(ctx, CONTAINER_OF(message, struct exec_piece, message));
	else if (message->kind == EXEC_CREDIT)
		take_credit(ctx, CONTAINER_OF(message, struct exec_credit, message));
	else
		take_job(ctx, CONTAINER_OF(message, struct exec_job, message));
}

void exec_endpoint_handle(struct exec_endpoint *endpoint, struct http_request *request)
{
	call_start(endpoint, request);
}

static void deinit_parts(struct exec_endpoint *endpoint)
{
	throttle_deinit(&endpoint->throttle);
	identity_deinit(&endpoint->identity_rules);
	identity_cache_deinit(&endpoint->identity_cache);
	json_decref(endpoint->tools);
}

struct exec_endpoint *exec_endpoint_new(const struct exec_endpoint_options *options)
{
	struct exec_endpoint *endpoint = calloc(1, sizeof *endpoint);
	if (!endpoint)
		return NULL;
	endpoint->options = *options;
	struct admission_options admission = options->admission;
	admission.loop = options->loop;
	char problem[IDENTITY_PROBLEM];
	endpoint->tools = mcp_tools_new(slice_of(exec_openapi, exec_openapi_len));
	if (!endpoint->tools || throttle_init(&endpoint->throttle, options->wrong_token_burst) < 0 ||
	    identity_init(&endpoint->identity_rules, &options->identity, problem) < 0 ||
	    identity_cache_init(&endpoint->identity_cache, options->identity_ms) < 0 ||
	    mailbox_init(&endpoint->mailbox, options->loop, 1, on_message, endpoint) < 0) {
		deinit_parts(endpoint);
		free(endpoint);
		return NULL;
	}
	uv_timer_init(options->loop, &endpoint->leases_timer);
	turn_init(&endpoint->fetch_turn, options->loop, call_fetch_flush, endpoint);
	uv_timer_init(options->loop, &endpoint->signs_timer);
	endpoint->leases_timer.data = endpoint->signs_timer.data = endpoint;
	/* Only a start-up that fails, and then ends the process, leaves the handles open. */
	endpoint->admission = admission_new(&admission);
	return endpoint->admission ? endpoint : NULL;
}

void exec_endpoint_set_limits(struct exec_endpoint *endpoint, const struct exec_endpoint_limits *limits)
{
	endpoint->options.limits = *limits;
}

void exec_endpoint_drain(struct exec_endpoint *endpoint)
{
	endpoint->draining = true;
}

static void on_part_freed(void *ctx)
{
	struct exec_endpoint *endpoint = ctx;
	if (--endpoint->closing > 0)
		return;
	endpoint->on_freed(endpoint->freed_ctx);
	deinit_parts(endpoint);
	free(endpoint);
}

static void on_timer_closed(uv_handle_t *handle)
{
	on_part_freed(handle->data);
}

/* Grants that nobody waits for: what is lost now would be held, and charged in full, until the lease ends by itself. */
static bool owes_leases(const struct exec_endpoint *endpoint)
{
	uint64_t now = uv_now(endpoint->options.loop);
	if (now >= endpoint->free_deadline_ms || !admission_link_up(endpoint->admission))
		return false;
	return now < endpoint->asked_until_ms || admission_owed(endpoint->admission);
}

static void on_leases_timer(uv_timer_t *timer)
{
	maybe_freed(timer->data);
}

static void maybe_freed(struct exec_endpoint *endpoint)
{
	if (!endpoint->freeing || endpoint->jobs_out || endpoint->closing)
		return;
	if (owes_leases(endpoint)) {
		uv_timer_start(&endpoint->leases_timer, on_leases_timer, LEASES_POLL_MS, 0);
		return;
	}
	endpoint->closing = 5;
	mailbox_close(&endpoint->mailbox, on_part_freed);
	uv_close((uv_handle_t *)&endpoint->leases_timer, on_timer_closed);
	uv_close((uv_handle_t *)&endpoint->signs_timer, on_timer_closed);
	turn_close(&endpoint->fetch_turn, on_part_freed);
	admission_free(endpoint->admission, on_part_freed, endpoint);
}

void exec_endpoint_free(struct exec_endpoint *endpoint, void (*on_freed)(void *ctx), void *ctx)
{
	endpoint->on_freed = on_freed;
	endpoint->freed_ctx = ctx;
	endpoint->freeing = true;
	endpoint->free_deadline_ms = uv_now(endpoint->options.loop) + LEASES_BACK_MS;
	maybe_freed(endpoint);
}
