/*
 * serve - the running gateway: builds the workers, the agent and the admin listener in order, and takes them down in reverse
 *
 *   SERVING → (SIGTERM or SIGINT) DRAINING → STOPPING → exit
 *
 * Draining: nothing new is run, what runs may end by itself, idle Sprites are destroyed; connections are still accepted for 2 s, so that
 * a router which looks at the health check can turn away. It ends when nothing is left, at DRAIN_SECONDS, or with a second signal.
 *
 * Runs on: the main thread; the agent's loop is this loop.
 */
#pragma once

#include "gateway/config.h"
#include "gateway/telemetry/metrics.h"

/* The process' exit status: 0 after a drain, 1 when something could not be started (said on standard error). */
int serve(const struct config *config, const struct metrics_build *identity);

/* Can `serve` use these settings, as far as one can tell without opening or asking anything? Each fault is said on standard error. */
MUST_CHECK int serve_check(const struct config *config);
