/*
 * sprites_provider - the provider interface over the Sprites API
 *
 * Owns:       its REST client, preparations under way. Not the loop, not the driver. Sandboxes that were handed over belong
 *             to the receiver, but use the provider's token and options: close them before the provider is freed.
 * Lifetime:   sprites_provider_new … sprites_provider_free; operations under way then end with PROVIDER_UNAVAILABLE
 *             (`done` must not start another). The memory is given back when the loop has closed the handles.
 * Runs on:    the loop given to sprites_provider_new.
 * Re-entry:   as provider.h says; sprites_provider_free() may be called from `done`.
 * Bounds:     options.max_calls REST calls at a time (beyond it an operation is refused with -EBUSY).
 */
#pragma once

#include "gateway/base/secret.h"
#include "gateway/curl/curl_driver.h"
#include "gateway/sprites/observer.h"

struct sprites_provider;

/* A member that is 0 means its default. */
struct sprites_provider_options {
	unsigned connect_timeout_ms;   /* 10000: TCP and TLS */
	unsigned call_timeout_ms;      /* 30000: one REST call */
	unsigned handshake_timeout_ms; /* 30000: a WebSocket up to its 101 */
	unsigned ping_interval_ms;     /* 15000 */
	unsigned dead_after_ms;        /* 45000 */
	unsigned keepalive_ms;         /* 20000: idle sandboxes run `true`; UINT_MAX = never */
	unsigned keepalive_timeout_ms; /* 5000 */
	unsigned complete_timeout_ms;  /* 2000: from an exit frame to op.complete */
	unsigned first_run_timeout_ms; /* 30000: the first command of a new Sprite */
	unsigned prepare_timeout_ms;   /* 60000: a whole preparation */
	size_t max_calls;              /* 256 */
	const char *label;             /* of our pool, as in client.h; NULL = none; borrowed */
	bool ahead;      /* as in sandbox_dial.h */
	bool restorable;               /* preparations make a checkpoint, which `restore` brings back */
	struct sprites_observer observer;
};

/* `base_url` is "https://host[:port]" or "http://…" with or without a slash at the end; copied, as is the token.
 * `options` may be NULL. 0, -ENOMEM, -EINVAL (not such a URL, an empty token, or one with control characters). */
MUST_CHECK int sprites_provider_new(uv_loop_t *loop, struct curl_driver *driver, const char *base_url, const struct secret *token,
				    const struct sprites_provider_options *options, struct sprites_provider **provider);
void sprites_provider_free(struct sprites_provider *provider);

/* Valid until sprites_provider_free(). */
struct provider sprites_provider_interface(struct sprites_provider *provider);
