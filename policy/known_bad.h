/*
 * known_bad - tokens that Redis has just refused as unknown or wrong, so that it is not asked again for each of their repetitions
 *
 * An entry is a kid and the MAC of its secret, never a kid alone: somebody else's guess at a kid cannot lock its owner out, and a token
 * that is minted later, being random, cannot have been seen. Set-associative; the oldest of a full set goes.
 *
 * Owns:     its table. Pure but for that.
 * Runs on:  one loop; each admission has its own.
 * Bounds:   KNOWN_BAD_ENTRIES, for KNOWN_BAD_MS each; 512 KiB, touched as it fills.
 */
#pragma once

#include "policy/token.h"

#define KNOWN_BAD_ENTRIES 8192
#define KNOWN_BAD_MS      5000

struct known_bad_entry;

struct known_bad {
	struct known_bad_entry *entries;
};

/* -ENOMEM. */
MUST_CHECK int known_bad_init(struct known_bad *known);
void known_bad_deinit(struct known_bad *known);

/* `mac` as token_mac() writes it. `reason` must stay valid; it is what known_bad_find() gives back. */
void known_bad_add(struct known_bad *known, const char *kid, const char *mac, const char *reason, uint64_t now_ms);

/* NULL: not known to be bad. */
const char *known_bad_find(const struct known_bad *known, const char *kid, const char *mac, uint64_t now_ms);
