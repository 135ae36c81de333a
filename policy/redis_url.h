/*
 * redis_url - where Redis is and how to log in
 *
 *   redis://[[user]:password@]host[:port][/db]     TCP
 *   rediss://…                                     TLS, the certificate must be for `host`
 *   unix:///path[?db=n]  unix://user:password@/path
 *
 * Percent-encoding is undone in user, password and path. An IPv6 address stands in brackets.
 *
 * Results:  0, or -EINVAL and *why, one plain phrase without anything of the URL in it (it may hold a password).
 * Bounds:   the arrays below.
 */
#pragma once

#include "gateway/base/slice.h"

struct redis_url {
	bool tls;
	char host[254]; /* "" for a Unix socket */
	char path[108]; /* "" for TCP */
	uint16_t port;
	unsigned db;
	char user[129]; /* "" = the default user */
	char password[513]; /* "" = none */
};

MUST_CHECK int redis_url_parse(struct slice text, struct redis_url *url, const char **why);

/* Wipes the password. */
void redis_url_wipe(struct redis_url *url);
