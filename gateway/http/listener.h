/*
 * listener - listening TCP sockets on one address, one for each worker; the kernel spreads connections (SO_REUSEPORT)
 *
 * Another process of the same user could join them unnoticed and take a part of the connections. So the first socket listens alone, which
 * fails when the address is in use, and shares the address only then.
 */
#pragma once

#include "gateway/base/slice.h"

#include <netinet/in.h>
#include <sys/socket.h>

#define LISTENER_ERROR_LEN 160

struct listener_address {
	struct sockaddr_storage storage;
	socklen_t len;
};

/* "127.0.0.1:8080", "[::]:8080" (both families), "[::1]:0". -EINVAL and a sentence that names what is wrong. */
MUST_CHECK int listener_parse(struct slice text, struct listener_address *address, char error[LISTENER_ERROR_LEN]);

/* Listening, non-blocking, close-on-exec sockets; the caller owns them. With port 0 all get the one port that the kernel chooses for the
 * first. A client that vanishes is given up after `silence_ms` (keepalive.h). -errno and a sentence: then there are none. */
MUST_CHECK int listener_open(const struct listener_address *address, unsigned silence_ms, int *fds, size_t count,
			     char error[LISTENER_ERROR_LEN]);

/* From now on no connection can begin here; those that have begun still come. Closing a socket resets what waits in its backlog: this and
 * listener_has_backlog() tell when there is nothing left to reset. -errno, and then connections go on to begin. */
MUST_CHECK int listener_refuse(int fd);

/* Whether connections wait to be accepted. */
bool listener_has_backlog(int fd);
