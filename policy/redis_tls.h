/*
 * redis_tls - TLS on a hiredis connection, with the server's name checked
 *
 * hiredis' own helper verifies the chain but not the name, so any certificate of a public authority would do; here the certificate
 * must be for the host of the URL (RFC 9525). Authorities are those of the system (SSL_CERT_FILE and SSL_CERT_DIR work).
 */
#pragma once

#include "gateway/base/attr.h"

struct redisContext;
struct ssl_ctx_st;

/* NULL when OpenSSL fails. Freed with redis_tls_free. */
struct ssl_ctx_st *redis_tls_new(void);
void redis_tls_free(struct ssl_ctx_st *tls);

/* Starts the handshake; a non-blocking connection goes on with it by itself. `host` is a name or an address. -EIO. */
MUST_CHECK int redis_tls_start(struct ssl_ctx_st *tls, struct redisContext *connection, const char *host);
