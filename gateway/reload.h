/*
 * reload - reads the settings again while the gateway serves
 *
 * All or nothing: a fault in any setting, also in one that would wait for a restart, and there are no new ones. What differs is logged by
 * name, since a value may be a secret.
 *
 * Runs on:  the main thread.
 */
#pragma once

#include "gateway/config.h"

/* `running`: what the gateway was started with; `live`: what was read last. NULL: said in the log, or the caller's: reload_free(). */
struct config *reload_read(const char *file, const struct config *running, const struct config *live);

/* Does nothing to what the gateway was started with. */
void reload_free(const struct config *config, const struct config *running);
