/*
 * curl_driver - libcurl's multi interface on one libuv loop; the only place that includes curl's header
 *
 * Owns:       the multi handles, their timers and socket watchers. Not the easy handles.
 * Lifetime:   curl_driver_new … curl_driver_free; every transfer must be stopped before the free.
 *             The driver's memory is given back after the loop has closed its handles.
 * Runs on:    the loop given to curl_driver_new.
 * Re-entry:   `done` never runs inside curl_transfer_start(); it may start and stop transfers, its own included.
 *             Neither start nor stop may be called from a libcurl callback (write, header, …).
 * Results:    0 or -ENOMEM / -EIO.
 *
 * A CONNECT_ONLY handle stays in its multi handle after `done`, because libcurl closes its connection when the handle is removed:
 * call curl_transfer_stop() only when the connection is no longer needed, and stop watching its socket before that. It needs
 * curl_transfer_start_kept(), which gives it a multi handle of its own: in a shared one libcurl takes a kept connection with unread
 * bytes for a dead one, and closes its socket under us, whenever another transfer starts.
 */
#pragma once

#include "gateway/base/attr.h"

#include <curl/curl.h>
#include <stdbool.h>
#include <uv.h>

struct curl_driver;
struct curl_lane;
struct curl_transfer;

/* Runs once per started transfer that is not stopped before. `done` is what libcurl reports. */
typedef void (*curl_done)(struct curl_transfer *transfer, CURLcode result);

/* Embedded in its user; CURLOPT_PRIVATE of the easy handle is taken by the driver. */
struct curl_transfer {
	CURL *easy;
	curl_done done;
	void *ctx;
	struct curl_lane *lane; /* NULL when not started; zeroed before first use */
};

struct curl_driver *curl_driver_new(uv_loop_t *loop);
void curl_driver_free(struct curl_driver *driver);

MUST_CHECK int curl_transfer_start(struct curl_driver *driver, struct curl_transfer *transfer);

/* The same for CONNECT_ONLY handles. */
MUST_CHECK int curl_transfer_start_kept(struct curl_driver *driver, struct curl_transfer *transfer);

/* Takes the handle out of the multi handle (closing a CONNECT_ONLY connection); `done` will not run any more. May be called twice. */
void curl_transfer_stop(struct curl_driver *driver, struct curl_transfer *transfer);

/* The options every handle of this project has: no signals, no proxy from the environment, no redirects, HTTP only,
 * HTTP/1.1 (ALPN would pick HTTP/2), no decoding. -EIO when libcurl refuses one. */
MUST_CHECK int curl_set_common(CURL *easy);
