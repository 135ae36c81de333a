/*
 * record - what Redis holds about one token: the hash sg:{g}:k:<kid>
 *
 * Plain data; holds no secret, only its MAC. scripts/admit.lua reads the same field names. Numbers are decimal text; a limit that is 0
 * is absent in the hash and means "no such limit" (rate, burst, conc and max_ms are always there: without them the script
 * refuses the token).
 */
#pragma once

#include "gateway/base/slice.h"
#include "policy/token.h"

#define RECORD_TEXT_MAX 128
#define RECORD_CMDS_MAX 1000
#define RECORD_FIELDS   26

struct record {
	char mac[TOKEN_MAC_LEN + 1];
	char pep[TOKEN_PEPPER_ID_LEN + 1]; /* under which pepper (token_pepper_id) */
	char status[10];                   /* active, suspended, revoked */
	char actor[RECORD_TEXT_MAX + 1];   /* printable ASCII without blanks */
	char name[RECORD_TEXT_MAX + 1];    /* free text for people */
	uint64_t created, nbf, exp;        /* ms since 1970 */
	char scopes[RECORD_TEXT_MAX + 1];  /* separated by blanks */
	uint64_t rate_n, rate_per_ms, burst;
	uint64_t arate_n, arate_per_ms, aburst; /* shared by the tokens of the actor */
	uint64_t conc, aconc;
	uint64_t bud_ms; /* sandbox time per UTC day */
	uint64_t max_ms; /* one run */
	uint64_t max_out, max_in;
	char cmds[RECORD_CMDS_MAX + 1]; /* programs, separated by blanks; empty = all */
	char pol[65];
	uint64_t ver; /* rises with every change */
};

/* Names and values as HSET wants them, alternating: at most 2*RECORD_FIELDS, the count is returned. The numbers live in `numbers`. */
size_t record_write(const struct record *record, struct slice out[2 * RECORD_FIELDS], char numbers[RECORD_FIELDS][21]);

/* One field of HGETALL's answer. Unknown names are passed over; -EINVAL for a value that is too long or no number. */
MUST_CHECK int record_read_field(struct record *record, struct slice name, struct slice value);

/* A new token's limits: 60/1m with burst 10, 3 at once, 300 s a run, scope exec:run. */
void record_set_defaults(struct record *record);

/* May this stand in a key and in a header-free log line: 1 to 128 printable ASCII characters without blank, quote and backslash? */
bool record_actor_is_valid(struct slice actor);
