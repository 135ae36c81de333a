/*
 * meters - turns what the modules observe into metrics; one set a thread
 *
 * Runs on:    the loop of its thread; the two flags are read by others.
 */
#pragma once

#include "gateway/proxy/relay.h"
#include "gateway/sprites/observer.h"
#include "gateway/telemetry/metrics.h"
#include "policy/admission.h"

#include <stdatomic.h>

struct meters {
	struct metrics_shard *shard;
	unsigned route[HTTP_LABELS];      /* label positions by http's enum */
	_Atomic bool redis_up;
	_Atomic unsigned redis_breaker;
	_Atomic bool upstream_ok;
};

void meters_init(struct meters *meters, struct metrics_shard *shard);

/* Where each request counts, whoever answers it: once at its head, once at its end. */
void meters_begun(struct meters *meters, const struct http_head *head);
void meters_request(struct meters *meters, const struct http_head *head, const struct http_summary *summary,
		    enum http_guard_reason refusal);
/* libmicrohttpd refused bytes that never became a request. */
void meters_rejected(struct meters *meters);
void meters_relay(struct meters *meters, const struct relay_summary *summary);

/* Ready to be put into the options of admission and of the Sprites client. */
struct admission_observer meters_admission(struct meters *meters);
struct sprites_observer meters_sprites(struct meters *meters);
