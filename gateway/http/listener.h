/*
 * listener - a listening TCP socket of one worker
 *
 * Every worker binds the same address with SO_REUSEPORT; the kernel spreads connections.
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

/* A listening, non-blocking, close-on-exec socket; the caller owns *fd. -errno and a sentence. */
MUST_CHECK int listener_open(const struct listener_address *address, int *fd, char error[LISTENER_ERROR_LEN]);

/* The port that the kernel chose for port 0. -errno. */
MUST_CHECK int listener_port(int fd, unsigned *port);
