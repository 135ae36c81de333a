/*
 * renewal - fetches a newer one of a stale answer, for nobody in particular (RFC 5861 section 3)
 *
 * What goes to Datasette is the request of the client who was given the stale one, as if there were no cache: it was anonymous. What comes
 * is kept, or says that nothing may be kept any more, or that Datasette fails just now; nobody waits for it.
 */
#include "gateway/base/clock.h"
#include "gateway/proxy/internal.h"

#include <stdlib.h>
#include <utlist.h>

/* At a time, of one worker. Beyond, stale answers are given until one of them has ended. */
#define RENEWALS_MAX 16
/* After one that failed. */
#define RETRY_US 1000000
#define ROOM     (64 * 1024)

struct renewal {
	struct renewal *prev, *next;
	struct relay *relay;
	struct exchange *exchange;
	struct cache_fill *fill;
	const struct cache_answer *stale;
	bool has_query;
	struct relay_summary summary;
};

/* `retry`: Datasette may do better in a moment. Otherwise what is there is over. */
static void end(struct renewal *renewal, bool retry)
{
	struct relay *relay = renewal->relay;
	if (retry)
		cache_renew_failed(renewal->stale, clock_mono_us() + RETRY_US);
	else
		cache_drop(renewal->stale);
	cache_fill_free(renewal->fill);
	cache_unref(renewal->stale);
	DL_DELETE(relay->renewals, renewal);
	relay->renewal_count--;
	if (relay->options.on_renewed)
		relay->options.on_renewed(relay->options.ctx, &renewal->summary);
	free(renewal);
}

static void give_up(struct renewal *renewal)
{
	renewal->summary.upstream = exchange_timing(renewal->exchange);
	exchange_cancel(renewal->exchange);
	end(renewal, false);
}

static void on_head(void *ctx, const struct response_head *head)
{
	struct renewal *renewal = ctx;
	struct relay *relay = renewal->relay;
	struct http_fields *fields = &relay->fields;
	struct http_head asked = {.method = SLICE("GET"), .query = renewal->has_query ? SLICE("?") : (struct slice){0}};
	struct cache_lifetime lifetime;
	renewal->summary.upstream_status = head->status;
	if (head->status >= 500) {
		/* Its end is waited for, since the connection is good for more; what it says is not. */
		cache_fill_free(TAKE(renewal->fill));
		return;
	}
	if (forward_response(head, fields) != 0 ||
	    !cache_may_keep(&asked, head->status, fields, relay->options.cache_stale_seconds, &lifetime) ||
	    !cache_fill_head(renewal->fill, head->status, fields, head->length != RESPONSE_LENGTH_UNKNOWN, &lifetime))
		give_up(renewal);
}

static size_t on_room(void *ctx UNUSED)
{
	return ROOM;
}

static void on_body(void *ctx, struct slice bytes)
{
	struct renewal *renewal = ctx;
	if (renewal->fill && !cache_fill_body(renewal->fill, bytes))
		give_up(renewal);
}

static void on_end(void *ctx)
{
	struct renewal *renewal = ctx;
	renewal->summary.upstream = exchange_timing(renewal->exchange);
	if (renewal->fill)
		cache_unref(cache_fill_end(TAKE(renewal->fill), clock_mono_us()));
	end(renewal, renewal->summary.upstream_status >= 500);
}

static void on_failed(void *ctx, const struct exchange_failure *failure)
{
	struct renewal *renewal = ctx;
	renewal->summary.upstream = exchange_timing(renewal->exchange);
	renewal->summary.failed = true;
	renewal->summary.error = failure->error;
	end(renewal, true);
}

static const struct exchange_events events = {
	.on_head = on_head, .on_room = on_room, .on_body = on_body, .on_end = on_end, .on_failed = on_failed};

static int start(struct renewal *renewal, const struct http_head *head, struct slice key)
{
	struct relay *relay = renewal->relay;
	renewal->fill = cache_fill_new(relay->options.cache, key, head->path, clock_mono_us());
	buf_consume(&relay->head, relay->head.len);
	int r = renewal->fill ? forward_request(head, &relay->options.forward, &relay->head) : -1;
	if (r != 0)
		return r;
	struct exchange_request request = {.head = buf_peek(&relay->head),
					   .may_retry = forward_may_retry(head),
					   .first_byte_ms = relay->options.first_byte_ms,
					   .idle_ms = relay->options.idle_ms};
	return exchange_start(relay->options.exchanges, &request, &events, renewal, &renewal->exchange);
}

void renewal_start(struct carry *carry, const struct cache_answer *stale, struct slice key)
{
	struct relay *relay = carry->relay;
	const struct http_head *head = http_request_head(carry->request);
	uint64_t now = clock_mono_us();
	if (relay->renewal_count >= RENEWALS_MAX || !cache_renew(stale, now))
		return;
	struct renewal *renewal = calloc(1, sizeof *renewal);
	if (!renewal) {
		cache_renew_failed(stale, now + RETRY_US);
		return;
	}
	*renewal = (struct renewal){.relay = relay, .stale = cache_ref(stale), .has_query = head->query.data};
	if (start(renewal, head, key) == 0) {
		DL_APPEND(relay->renewals, renewal);
		relay->renewal_count++;
		return;
	}
	cache_renew_failed(stale, now + RETRY_US);
	cache_fill_free(renewal->fill);
	cache_unref(stale);
	free(renewal);
}

void renewals_cancel(struct relay *relay)
{
	while (relay->renewals) {
		exchange_cancel(relay->renewals->exchange);
		end(relay->renewals, true);
	}
}
