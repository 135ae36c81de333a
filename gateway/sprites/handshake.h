/*
 * handshake - the parts of a WebSocket opening handshake that libcurl leaves to us (RFC 6455 section 4.1); no I/O
 *
 * libcurl accepts any 101: a wrong or missing Sec-WebSocket-Accept, an extension or a subprotocol nobody asked for.
 *
 * Owns:     nothing; plain data.
 * Lifetime: handshake_init, then handshake_header for every response header line, then handshake_check.
 */
#pragma once

#include "gateway/base/slice.h"

#define HANDSHAKE_KEY_LEN     24
#define HANDSHAKE_ACCEPT_LEN  28
#define HANDSHAKE_VERSION_MAX 31

struct handshake {
	char key[HANDSHAKE_KEY_LEN + 1];       /* Sec-WebSocket-Key */
	char accept[HANDSHAKE_ACCEPT_LEN + 1]; /* what the server must answer */
	bool upgrade, connection, accepted, extra;
	bool from_agent; /* Sprite-Version: the Sprite itself answered, not the control plane (sprites contract 0.3) */
	char version[HANDSHAKE_VERSION_MAX + 1]; /* what it says; "" = nothing, or nothing like a version */
};

/* -EIO when the random generator or OpenSSL fails. */
MUST_CHECK int handshake_init(struct handshake *handshake);

/* The same with a key of the caller's, of HANDSHAKE_KEY_LEN characters; for tests. */
MUST_CHECK int handshake_init_key(struct handshake *handshake, const char *key);

/* One line, with or without its line end. A status line starts over. */
void handshake_header(struct handshake *handshake, struct slice line);

/* A version that is known to lose the output of short commands: before 0.0.1-rc33 (sprites contract, exec). One that is not understood is
 * not. */
bool handshake_is_outdated(const char *version);

/* NULL when the answer was a proper one, else a plain sentence. */
const char *handshake_check(const struct handshake *handshake);
