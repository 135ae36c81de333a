/*
 * cached - the relay's side of the cache: answers from it, fills it, and lets requests for one thing wait for the first of them
 *
 * A flight is one request to Datasette whose answer may be kept, and those who wait for it. Its leader is an ordinary request whose answer
 * streams as ever. When that answer may not be kept, those who wait are sent on by themselves: nobody inherits it.
 */
#include "gateway/base/clock.h"
#include "gateway/proxy/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

/* Then they go on by themselves: Datasette may be slow to answer the leader. */
#define WAIT_US 5000000
/* And when the leader's client has not taken any of its answer for so long. */
#define HELD_US  500000
#define SWEEP_MS 250
/* Targets are bounded by the head of the request. */
#define KEY_MAX (256 * 1024)

struct flight {
	struct flight *prev, *next;
	struct buf key;
	struct cache_fill *fill; /* NULL once it is not to be kept */
	uint64_t started_us;
	uint64_t held_us;        /* since when the leader's client holds it back; 0 = it does not */
	struct carry *waiting;   /* longest first */
};

static struct flight *find_flight(struct relay *relay, struct slice key)
{
	struct flight *flight;
	DL_FOREACH (relay->flights, flight) {
		if (slice_equal(buf_peek(&flight->key), key))
			return flight;
	}
	return NULL;
}

static void start_flight(struct carry *carry, struct slice key)
{
	struct relay *relay = carry->relay;
	struct flight *flight = calloc(1, sizeof *flight);
	if (!flight)
		return;
	buf_init(&flight->key, KEY_MAX);
	flight->started_us = clock_mono_us();
	flight->fill = cache_fill_new(relay->options.cache, key, http_request_head(carry->request)->path, flight->started_us);
	if (!flight->fill || buf_append(&flight->key, key) < 0) {
		cache_fill_free(flight->fill);
		buf_deinit(&flight->key);
		free(flight);
		return;
	}
	DL_APPEND(relay->flights, flight);
	carry->leads = flight;
}

static bool is_held(const struct flight *flight, uint64_t now)
{
	return flight->held_us && now - flight->held_us >= HELD_US;
}

static void stop_waiting(struct carry *carry)
{
	if (carry->waits)
		DL_DELETE2(carry->waits->waiting, carry, waiting_prev, waiting_next);
	carry->waits = NULL;
}

/* --- answering ------------------------------------------------------------------------------------------------------------- */

static void add_status(struct http_fields *fields, const char *text)
{
	/* A list that is full goes without. */
	int r UNUSED = http_fields_add(fields, SLICE("Cache-Status"), slice_str(text));
}

/* The answer is the carry's from now on. */
static void answer_from(struct carry *carry, const struct cache_answer *answer, bool collapsed)
{
	struct http_request *request = carry->request;
	struct http_fields *fields = &carry->relay->fields;
	uint64_t now = clock_mono_us(), age = (now - answer->asked_us + answer->age_us) / 1000000;
	bool stale = now >= answer->fresh_us;
	/* Less than nothing when it is stale (RFC 9211 section 2.4). */
	int64_t left = ((int64_t)answer->fresh_us - (int64_t)now) / 1000000;
	char age_text[24], status[64];
	carry->answer = answer;
	carry->summary.cache = collapsed ? RELAY_CACHE_COLLAPSED : stale ? RELAY_CACHE_STALE : RELAY_CACHE_HIT;
	snprintf(age_text, sizeof age_text, "%llu", (unsigned long long)age);
	snprintf(status, sizeof status, collapsed ? "spritegate; fwd=uri-miss; collapsed" : "spritegate; hit; ttl=%lld%s", (long long)left,
		 stale ? "; detail=stale" : "");
	http_fields_clear(fields);
	int r = 0;
	for (size_t i = 0; r == 0 && i < answer->count; i++)
		r = http_fields_add(fields, answer->fields[i].name, answer->fields[i].value);
	if (r == 0)
		r = http_fields_add(fields, SLICE("Age"), slice_str(age_text));
	add_status(fields, status);
	bool to_head = slice_equal(http_request_head(request)->method, SLICE("HEAD"));
	if (r == 0 && to_head) {
		r = http_request_respond_stream(request, answer->status, fields,
						answer->with_length ? answer->body.len : HTTP_LENGTH_UNKNOWN);
		http_request_end(request);
	} else if (r == 0) {
		r = http_request_respond_lent(request, answer->status, fields, answer->body);
	}
	if (r == HTTP_REQUEST_E_HEAD)
		relay_refuse_head(carry);
	else if (r != 0)
		http_request_abort(request);
}

static void wait_for(struct carry *carry, struct flight *flight)
{
	carry->waits = flight;
	/* However many it has waited for. */
	if (!carry->waiting_since_us)
		carry->waiting_since_us = clock_mono_us();
	DL_APPEND2(flight->waiting, carry, waiting_prev, waiting_next);
}

bool cached_answer(struct carry *carry)
{
	struct relay *relay = carry->relay;
	const struct http_head *head = http_request_head(carry->request);
	if (!relay->options.cache)
		return false;
	carry->use = cache_use_of(head);
	carry->summary.cache = carry->use == CACHE_USE ? RELAY_CACHE_MISS : RELAY_CACHE_BYPASS;
	if (carry->use != CACHE_USE || carry->alone)
		return false;
	buf_consume(&relay->key, relay->key.len);
	if (cache_key(head, forward_client_of(head, &relay->options.forward).scheme, &relay->key) < 0) {
		carry->use = CACHE_BYPASS_REQUEST;
		return false;
	}
	struct slice key = buf_peek(&relay->key);
	const struct cache_answer *answer = cache_find(relay->options.cache, key, clock_mono_us());
	bool is_get = slice_equal(head->method, SLICE("GET")), is_stale = answer && clock_mono_us() >= answer->fresh_us;
	/* HEAD does not tell what has changed. */
	if (is_stale && !is_get) {
		cache_unref(answer);
		return false;
	}
	if (is_stale)
		renewal_start(carry, answer, key);
	if (answer) {
		answer_from(carry, answer, false);
		return true;
	}
	if (!is_get)
		return false;
	struct flight *flight = find_flight(relay, key);
	if (!flight) {
		start_flight(carry, key);
		return false;
	}
	uint64_t now = clock_mono_us();
	carry->alone = now - flight->started_us >= WAIT_US || is_held(flight, now);
	if (!carry->alone)
		wait_for(carry, flight);
	return !carry->alone;
}

/* --- landing --------------------------------------------------------------------------------------------------------------- */

static void send_on(struct carry *carry, bool alone)
{
	carry->alone |= alone;
	if (!cached_answer(carry))
		relay_pass_on(carry);
}

/* Ends the flight. `alone`: those who wait need an answer of their own each; otherwise one of them leads. */
static void land(struct carry *leader, const struct cache_answer *answer, bool alone)
{
	struct flight *flight = TAKE(leader->leads);
	struct carry *waiting = flight->waiting, *carry, *next;
	DL_DELETE(leader->relay->flights, flight);
	cache_fill_free(flight->fill);
	buf_deinit(&flight->key);
	free(flight);
	/* Nobody can be in two lists: each leaves this one before anything is done with it. */
	DL_FOREACH2(waiting, carry, waiting_next)
	carry->waits = NULL;
	for (carry = waiting; carry; carry = next) {
		next = carry->waiting_next;
		if (answer)
			answer_from(carry, cache_ref(answer), true);
		else
			send_on(carry, alone);
	}
}

void cached_head(struct carry *carry, unsigned status, struct http_fields *fields, bool with_length)
{
	struct relay *relay = carry->relay;
	const struct http_head *head = http_request_head(carry->request);
	struct cache_lifetime lifetime;
	if (!relay->options.cache)
		return;
	if (carry->passes_body && status < 400)
		cache_invalidate(relay->options.cache, head->path);
	struct flight *flight = carry->leads;
	bool kept = flight && flight->fill && cache_may_keep(head, status, fields, relay->options.cache_stale_seconds, &lifetime) &&
		    cache_fill_head(flight->fill, status, fields, with_length, &lifetime);
	if (flight && !kept)
		cache_fill_free(TAKE(flight->fill));
	add_status(fields, cache_use_status(carry->use, kept));
}

void cached_begun(struct carry *carry)
{
	if (carry->leads && !carry->leads->fill)
		land(carry, NULL, true);
}

bool cached_keeps(const struct carry *carry)
{
	return carry->leads != NULL;
}

void cached_room(struct carry *carry, bool any)
{
	struct flight *flight = carry->leads;
	if (flight && any)
		flight->held_us = 0;
	else if (flight && !flight->held_us)
		flight->held_us = clock_mono_us();
}

void cached_body(struct carry *carry, struct slice bytes)
{
	if (!carry->leads || cache_fill_body(carry->leads->fill, bytes))
		return;
	cache_fill_free(TAKE(carry->leads->fill));
	land(carry, NULL, true);
}

void cached_end(struct carry *carry)
{
	if (!carry->leads)
		return;
	const struct cache_answer *answer = cache_fill_end(TAKE(carry->leads->fill), clock_mono_us());
	land(carry, answer, !answer);
	cache_unref(answer);
}

void cached_quit(struct carry *carry)
{
	stop_waiting(carry);
	if (carry->leads)
		land(carry, NULL, false);
}

void cached_finished(struct carry *carry)
{
	struct cache *cache = carry->relay->options.cache;
	cached_quit(carry);
	cache_unref(TAKE(carry->answer));
	/* What changes things may have done so after the head of its answer, or without one. */
	if (cache && carry->passes_body && carry->asked && carry->summary.upstream_status < 400)
		cache_invalidate(cache, http_request_head(carry->request)->path);
}

/* --- life ------------------------------------------------------------------------------------------------------------------ */

static void on_sweep(uv_timer_t *timer)
{
	struct relay *relay = timer->data;
	uint64_t now = clock_mono_us();
	struct flight *flight;
	struct carry *carry, *next;
	DL_FOREACH (relay->flights, flight) {
		for (carry = flight->waiting; carry; carry = next) {
			next = carry->waiting_next;
			if (now - carry->waiting_since_us < WAIT_US && !is_held(flight, now))
				break;
			stop_waiting(carry);
			carry->alone = true;
			relay_pass_on(carry);
		}
	}
}

int cached_init(struct relay *relay)
{
	buf_init(&relay->key, KEY_MAX);
	if (!relay->options.cache)
		return 0;
	relay->timer = malloc(sizeof *relay->timer);
	if (!relay->timer)
		return -ENOMEM;
	int r = uv_timer_init(relay->options.loop, relay->timer);
	relay->timer->data = relay;
	return r < 0 ? r : uv_timer_start(relay->timer, on_sweep, SWEEP_MS, SWEEP_MS);
}

static void on_timer_closed(uv_handle_t *timer)
{
	free(timer);
}

void cached_deinit(struct relay *relay)
{
	renewals_cancel(relay);
	if (relay->timer)
		uv_close((uv_handle_t *)relay->timer, on_timer_closed);
	buf_deinit(&relay->key);
}
