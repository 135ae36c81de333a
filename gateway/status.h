/*
 * status - the page of the admin listener: what the gateway does right now, and cancelling commands
 *
 *   GET /, /status                       the page: no external assets, a policy that allows its own style and script only
 *   GET /status/events                   what it shows (status_view.h), as server-sent events, one a second
 *   DELETE /status/commands/<exec_id>    ends a command; with the admin token as a bearer token
 *
 * No cookie and no address stands for the token, and no other origin is allowed to send it: another page cannot use it.
 *
 * Owns:       its history, its watchers.
 * Lifetime:   status_new … status_free (asynchronous), after its server has stopped.
 * Runs on:    the agent's loop.
 * Results:    NULL = no memory.
 * Bounds:     STATUS_WATCHERS at once, 503 beyond; one event a second each, none while a client does not take the last.
 */
#pragma once

#include "gateway/admin.h"

#define STATUS_WATCHERS 16

struct status;

struct status *status_new(const struct admin_options *options);
void status_free(struct status *status, void (*on_freed)(void *ctx), void *ctx);

/* False when the request is for something else: nothing was done. */
bool status_handle(struct status *status, struct http_request *request);
