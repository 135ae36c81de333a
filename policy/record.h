/*
 * record - what Redis holds about one token (the hash sg:{g}:k:<kid>) or one named policy (sg:{g}:p:<name>)
 *
 * Plain data; holds no secret, only its MAC. scripts/shared/caller.lua reads the same field names. Numbers are decimal text. A rule that a
 * token's record does not have comes from its policy; where neither has it, and where it is 0 or empty, there is no such limit (rate,
 * burst, conc and max_ms must be there: without them the script refuses the token).
 *
 * Invariants: a field counts only when its bit in `present` is set; others are 0 or "".
 */
#pragma once

#include "gateway/base/slice.h"
#include "policy/token.h"

#define RECORD_TEXT_MAX 128
#define RECORD_NAME_MAX 64   /* of a policy */
#define RECORD_CMDS_MAX 1000
#define RECORD_NETS_MAX 1200 /* 32 networks */
#define RECORD_PROBLEM  160

enum record_field {
	/* Of a token alone. */
	RECORD_MAC,
	RECORD_PEP,
	RECORD_PMAC,
	RECORD_PMAC_UNTIL,
	RECORD_STATUS,
	RECORD_ACTOR,
	RECORD_NBF,
	RECORD_EXP,
	RECORD_POL,
	/* Of both, not inherited. */
	RECORD_NAME,
	RECORD_CREATED,
	RECORD_CREATED_BY,
	RECORD_VER,
	/* Rules. */
	RECORD_SCOPES,
	RECORD_RATE_N,
	RECORD_RATE_PER_MS,
	RECORD_BURST,
	RECORD_ARATE_N,
	RECORD_ARATE_PER_MS,
	RECORD_ABURST,
	RECORD_CONC,
	RECORD_ACONC,
	RECORD_BUD_MS,
	RECORD_BUD_OUT,
	RECORD_MAX_MS,
	RECORD_MAX_OUT,
	RECORD_MAX_IN,
	RECORD_CMDS,
	RECORD_ENV_ALLOW,
	RECORD_IP_ALLOW,
	RECORD_SHADOW,
	RECORD_EGRESS,
	RECORD_SESSIONS,
	RECORD_MAX_PROCS,
	RECORD_MAX_FILE,
	RECORD_MAX_MEM,
	RECORD_FIELDS,
};

#define RECORD_BIT(field) (UINT64_C(1) << (field))
#define RECORD_RULES      (RECORD_BIT(RECORD_FIELDS) - RECORD_BIT(RECORD_SCOPES))

struct record {
	uint64_t present;
	char mac[TOKEN_MAC_LEN + 1];
	char pep[TOKEN_PEPPER_ID_LEN + 1]; /* under which pepper (token_pepper_id) */
	char pmac[TOKEN_MAC_LEN + 1];      /* of the secret before a rotation, until pmac_until */
	uint64_t pmac_until;
	char status[10];                   /* active, suspended, revoked */
	char actor[RECORD_TEXT_MAX + 1];   /* printable ASCII without blanks */
	uint64_t nbf, exp;                 /* ms since 1970 */
	char pol[RECORD_NAME_MAX + 1];     /* the policy it follows */
	char name[RECORD_TEXT_MAX + 1];    /* free text for people */
	uint64_t created;
	char created_by[RECORD_TEXT_MAX + 1];
	uint64_t ver;        /* rises with every change */
	char scopes[RECORD_TEXT_MAX + 1];  /* lists: separated by blanks */
	uint64_t rate_n, rate_per_ms, burst;
	uint64_t arate_n, arate_per_ms, aburst; /* shared by the tokens of the actor */
	uint64_t conc, aconc;
	uint64_t bud_ms, bud_out;          /* sandbox time and output bytes per UTC day */
	uint64_t max_ms;                   /* one run */
	uint64_t max_out, max_in;
	char cmds[RECORD_CMDS_MAX + 1];      /* programs; empty = all */
	char env_allow[RECORD_CMDS_MAX + 1]; /* names of variables, X_* = all that begin so; empty = all */
	char ip_allow[RECORD_NETS_MAX + 1];  /* networks: <32 hexadecimal digits>/<bits>; empty = from anywhere */
	char shadow[RECORD_TEXT_MAX + 1];    /* limits that only are looked at */
	char egress[RECORD_CMDS_MAX + 1];    /* domains that commands may reach, *.suffix, `defaults`; empty = no network */
	uint64_t sessions;                   /* at the same time; 0 = none */
	uint64_t max_procs, max_file, max_mem; /* in the sandbox: processes of its user, bytes of a file, bytes of a process */
};

/* Names and values as HSET wants them, alternating, of all fields that are present; the count is returned. Numbers live in `numbers`. */
size_t record_write(const struct record *record, struct slice out[2 * RECORD_FIELDS], char numbers[RECORD_FIELDS][21]);

/* One field of HGETALL's answer. -EINVAL for an unknown name, and for a value that is too long or no number. */
MUST_CHECK int record_read_field(struct record *record, struct slice name, struct slice value);

const char *record_field_name(enum record_field field);

/* Takes the fields of `bits` from `from`, present or not. */
void record_copy(struct record *record, const struct record *from, uint64_t bits);

/* What the rules that nobody has set are: 60/1m with burst 10, 3 at once, 300 s a run (at most the budget), scope exec:run. Only those
 * are filled in that must be there, or follow from others: the burst of a rate, the run of a budget. */
void record_fill(struct record *record);

/* Would the script accept these rules, and could some command run under them? One line in `problem` when not. */
bool record_is_usable(const struct record *record, char problem[RECORD_PROBLEM]);

/* May this stand in a key and in a header-free log line: 1 to 128 printable ASCII characters without blank, quote and backslash? */
bool record_actor_is_valid(struct slice actor);

/* 1 to 64 of 0-9 A-Z a-z . _ - */
bool record_policy_name_is_valid(struct slice name);
