#include "policy/redis_tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <hiredis/hiredis.h>
#include <hiredis/hiredis_ssl.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdint.h>

struct ssl_ctx_st *redis_tls_new(void)
{
	SSL_CTX *tls = SSL_CTX_new(TLS_client_method());
	if (!tls)
		return NULL;
	SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
	if (SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION) == 1 && SSL_CTX_set_default_verify_paths(tls) == 1)
		return tls;
	SSL_CTX_free(tls);
	return NULL;
}

void redis_tls_free(struct ssl_ctx_st *tls)
{
	SSL_CTX_free(tls);
}

/* A name is also sent (SNI); an address may not be (RFC 6066 section 3). */
static bool expect_host(SSL *ssl, const char *host)
{
	unsigned char address[sizeof(struct in6_addr)];
	if (inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1)
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
	return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, (void *)(uintptr_t)host) == 1;
}

int redis_tls_start(struct ssl_ctx_st *tls, struct redisContext *connection, const char *host)
{
	SSL *ssl = SSL_new(tls);
	if (!ssl)
		return -EIO;
	if (expect_host(ssl, host) && redisInitiateSSL(connection, ssl) == REDIS_OK)
		return 0;
	SSL_free(ssl);
	return -EIO;
}
