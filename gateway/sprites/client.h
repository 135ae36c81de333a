/*
 * client - the REST calls of the Sprites API, over connections that libcurl keeps and shares
 *
 * Owns:       the calls under way and copies of the URL and the token. Not the driver.
 * Lifetime:   client_new … client_free; calls under way then end without `done`.
 * Runs on:    the loop of its driver.
 * Re-entry:   `done` never runs inside a call; it may start others, and may call client_free().
 * Results:    0, -ENOMEM, -EIO (libcurl refuses), -EBUSY (max_calls under way), -EMSGSIZE (does not fit a URL);
 *             `done` runs only after 0, exactly once.
 * Bounds:     bodies up to 1 MiB, options.max_calls calls at a time, options.timeout_ms each, 10000 pages of a list.
 * Invariants: the token goes to the base URL's host only and into no message; redirects are not followed.
 */
#pragma once

#include "gateway/base/secret.h"
#include "gateway/curl/curl_driver.h"
#include "gateway/sprites/answers.h"

struct client;

struct client_options {
	struct curl_driver *driver;
	const char *base_url;       /* "https://api.sprites.dev", no slash at the end; copied */
	const struct secret *token; /* copied */
	const char *label;          /* that new Sprites carry beside "spritegate", and ours are known by; NULL = none; borrowed */
	unsigned connect_timeout_ms;
	unsigned timeout_ms;
	size_t max_calls;
	struct sprites_observer observer;
};

/* Valid during the call. */
typedef void (*client_done)(void *ctx, const struct verdict *verdict);

/* NULL when out of memory. */
struct client *client_new(const struct client_options *options);
void client_free(struct client *client);

MUST_CHECK int client_create(struct client *client, const char *name, client_done done, void *ctx);
MUST_CHECK int client_get(struct client *client, const char *name, client_done done, void *ctx);
/* Gives the Sprite, beside the labels that it was created with, the one that says who has taken it; verdict->taken is what it has then. */
MUST_CHECK int client_label_taken(struct client *client, const char *name, uint64_t parking, uint64_t taker, client_done done, void *ctx);
MUST_CHECK int client_delete(struct client *client, const char *name, client_done done, void *ctx);

/* Closes the Sprite's network to everything; reads the policy back and compares it (PROVIDER_POLICY when it differs).
 */
MUST_CHECK int client_close_network(struct client *client, const char *name, client_done done, void *ctx);
MUST_CHECK int client_check_network(struct client *client, const char *name, client_done done, void *ctx);

/* Sets another network policy (answers_open_policy); reads it back and compares it. */
MUST_CHECK int client_open_network(struct client *client, const char *name, const char *policy, client_done done, void *ctx);
MUST_CHECK int client_check_open(struct client *client, const char *name, const char *policy, client_done done, void *ctx);

/* All Sprites whose name begins with `prefix`: one `found` each as the pages come (it must not call back), then `done`.
 * Only with PROVIDER_OK is it all of them. */
MUST_CHECK int client_list(struct client *client, const char *prefix, provider_found found, client_done done, void *ctx);

/* Makes a checkpoint of the Sprite's disk (verdict->checkpoint is its id); brings the disk back to one, which ends everything
 * that runs. */
MUST_CHECK int client_checkpoint(struct client *client, const char *name, client_done done, void *ctx);
MUST_CHECK int client_restore(struct client *client, const char *name, const char *checkpoint, client_done done, void *ctx);

/* Signals a running session by name ("KILL"). */
MUST_CHECK int client_kill(struct client *client, const char *name, const char *session, const char *signal, client_done done, void *ctx);
