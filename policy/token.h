/*
 * token - the text of a token: sgt_<kid:16>_<secret:32><crc:6>, all of 0-9A-Za-z
 *
 * The kid is public and may be logged. The secret is 190 random bits. The checksum (CRC-32 of everything before it, six base-62
 * digits) lets scanners and us drop junk without asking Redis; it protects nothing.
 *
 * Results:    0, TOKEN_E_FORM, TOKEN_E_CHECKSUM; -EIO when OpenSSL fails.
 */
#pragma once

#include "gateway/base/hmac.h"
#include "gateway/base/secret.h"

#define TOKEN_KID_LEN       16
#define TOKEN_SECRET_LEN    32
#define TOKEN_CHECKSUM_LEN  6
#define TOKEN_IDENTITY_MARK '@'
#define TOKEN_LEN           (4 + TOKEN_KID_LEN + 1 + TOKEN_SECRET_LEN + TOKEN_CHECKSUM_LEN)
#define TOKEN_MAC_LEN       (2 * HMAC_BYTES)
#define TOKEN_PEPPER_ID_LEN 8

#define TOKEN_E_FORM     1 /* not the shape of a token of ours */
#define TOKEN_E_CHECKSUM 2 /* the shape, but mistyped or made up */

/* Borrowed from the text that was parsed. */
struct token_parts {
	struct slice kid;
	struct slice secret;
};

/* Strict: the whole text must be one token. *parts is set only when the result is 0. */
MUST_CHECK int token_parse(struct slice text, struct token_parts *parts);

/* Sixteen of 0-9A-Za-z: may this stand in a key? */
bool token_kid_is_valid(struct slice kid);

/* The same, or what callers without a token have in its place: TOKEN_IDENTITY_MARK and fifteen of these. */
bool token_kid_or_identity(struct slice kid);

/* A new random token with NUL; the caller wipes it. */
MUST_CHECK int token_mint(char out[TOKEN_LEN + 1]);

/* The same with another secret for a kid that exists. */
MUST_CHECK int token_mint_for(struct slice kid, char out[TOKEN_LEN + 1]);

/* HMAC-SHA-256(pepper, secret) in lower-case hexadecimal with NUL: the only form of a secret that is stored. */
MUST_CHECK int token_mac(const struct secret *pepper, struct slice secret, char out[TOKEN_MAC_LEN + 1]);

/* Names a pepper without telling it, so that a token made under another one can be recognised in the log. */
MUST_CHECK int token_pepper_id(const struct secret *pepper, char out[TOKEN_PEPPER_ID_LEN + 1]);
