/*
 * curl_probe - one GET whose answer's status is most of what matters; for the command line
 *
 * Blocks, at most timeout_ms. Follows no redirects, uses no proxy.
 */
#pragma once

#include "gateway/base/buf.h"
#include "gateway/base/secret.h"

#include <stdint.h>

struct curl_probe {
	const char *url;
	const char *unix_path;      /* NULL = as the URL says */
	const char *ca_file;        /* NULL or "" = the system's */
	const struct secret *token; /* NULL = none; else sent as a bearer token */
	long timeout_ms;
	struct buf *body;           /* gets the answer's, and no more than fits: then there was no answer; NULL = it is dropped */
};

struct curl_probe_result {
	long status;      /* 0: there was no answer, `error` says why */
	uint64_t took_us;
	char error[256];
};

/* 0, or -ENOMEM. */
MUST_CHECK int curl_probe(const struct curl_probe *probe, struct curl_probe_result *result);
