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
#include "gateway/limits.h"
#include "gateway/telemetry/metrics.h"

/* `file`: where the settings came from beside the environment, to be read again on SIGHUP; may be NULL.
 * The process' exit status: 0 after a drain, 1 when something could not be started (said on standard error). */
int serve(const struct config *config, const char *file, const struct metrics_build *identity);

/* Can `serve` use these settings, as far as one can tell without opening or asking anything? Every fault is a line of `faults`, not only the
 * first. */
MUST_CHECK int serve_check(const struct config *config, struct buf *faults);

/* What these settings ask of the descriptors and the memory that there may be. */
struct limits_wanted serve_wanted(const struct config *config);
