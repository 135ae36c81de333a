/*
 * meters - turns what the modules observe into metrics; one set a thread
 *
 * Runs on:    the loop of its thread; what it knows of its peers is shared by all threads.
 */
#pragma once

#include "gateway/http/server.h"
#include "gateway/proxy/relay.h"
#include "gateway/sprites/observer.h"
#include "gateway/telemetry/metrics.h"
#include "policy/admission.h"

#include <stdatomic.h>

/* One for the process. Written only when something changes, so that threads which look at it for every request do not disturb each
 * other. */
struct peers {
	_Alignas(64) _Atomic bool datasette_down; /* the last outcome, whoever saw it */
	_Atomic unsigned redis_links_down;        /* of all threads */
};

struct meters {
	struct metrics_shard *shard;
	struct peers *peers;
	unsigned route[HTTP_LABELS];      /* label positions by http's enum */
	bool redis_up;
	_Atomic unsigned redis_breaker;   /* read by others */
};

/* `peers` is borrowed; its Redis counts as down until every meters has been told that its link is up. */
void meters_init(struct meters *meters, struct metrics_shard *shard, struct peers *peers);

bool meters_redis_up(const struct meters *meters);
bool meters_datasette_up(const struct meters *meters);

/* Where each request counts, whoever answers it: once at its head, once at its end. */
void meters_begun(struct meters *meters, const struct http_head *head);
void meters_request(struct meters *meters, const struct http_head *head, const struct http_summary *summary,
		    enum http_guard_reason refusal);
/* libmicrohttpd refused bytes that never became a request. */
void meters_rejected(struct meters *meters);
void meters_crowded(struct meters *meters, enum http_crowd crowd);
void meters_relay(struct meters *meters, const struct relay_summary *summary);
/* Datasette answered, or failed. meters_relay() says so for its requests. */
void meters_datasette(struct meters *meters, bool up);

/* Ready to be put into the options of admission and of the Sprites client. */
struct admission_observer meters_admission(struct meters *meters);
struct sprites_observer meters_sprites(struct meters *meters);
