/*
 * admission - may this token run a command now? One Redis round trip, all or nothing
 *
 * Owns:       a Redis link (link.h), requests under way, and settlements until Redis has acknowledged them.
 * Lifetime:   admission_new … admission_free (asynchronous: on_freed runs when the loop has let go of everything).
 * Runs on:    one loop; every worker and the agent loop have their own.
 * Re-entry:   `done` never runs inside admission_decide().
 * Results:    0, or -ENOMEM / -EIO (the request is then answered 500).
 * Bounds:     options.max_pending requests under way (beyond it: ADMISSION_UNAVAILABLE), options.max_unsettled settlements.
 * Invariants: a lease id is made before the call; a decision that timed out is settled with nothing used, and refunded, when Redis is
 *             back, because the script may have run; nothing is granted without Redis' answer, but by options.degraded, and then only what
 *             was never sent to Redis.
 */
#pragma once

#include "gateway/base/log.h"
#include "gateway/base/secret.h"
#include "gateway/base/slice.h"
#include "policy/fields.h"

#include <uv.h>

#define ADMISSION_KID_LEN     16
#define ADMISSION_LEASE_LEN   24 /* 96 random bits as hexadecimal text */
#define ADMISSION_NAMES_MAX   8192
#define ADMISSION_EGRESS_MAX  1000
#define ADMISSION_SESSION_MAX 64 /* [A-Za-z0-9._-] */
#define ADMISSION_BY_MAX      128

enum admission_code {
	ADMISSION_GRANTED,
	ADMISSION_INVALID_TOKEN,      /* unknown, wrong secret, expired, revoked, suspended, not yet valid: all alike to the caller */
	ADMISSION_INSUFFICIENT_SCOPE,
	ADMISSION_NETWORK_DENIED,     /* the client's address is in none of the token's networks */
	ADMISSION_COMMAND_DENIED,
	ADMISSION_VARIABLE_DENIED,    /* `variable` names the first one that the token may not set */
	ADMISSION_INPUT_TOO_LARGE,    /* max_input_bytes says what the token allows */
	ADMISSION_QUOTA,              /* rate, actor-rate, concurrency, actor-concurrency, budget, output-budget */
	ADMISSION_UNAVAILABLE,        /* Redis away, slow or broken: fail closed */
	/* Of an existing command: */
	ADMISSION_RUNNING,
	ADMISSION_ENDING,             /* … and was to end before: now it is killed */
	ADMISSION_FINISHED,           /* `result` is what it ended with */
	ADMISSION_NO_COMMAND,         /* never was, not any more, or another token's */
	/* Of a request with an idempotency key that was seen before; `prior` is the id of its command: */
	ADMISSION_REPLAY,             /* `result` is what it ended with */
	ADMISSION_IN_PROGRESS,
	ADMISSION_FORGOTTEN,          /* how it ended is not known any more */
	ADMISSION_OTHER_BODY,         /* it was sent with another body */
	/* Of a request with a session: */
	ADMISSION_SESSION_DENIED,     /* the token may have none */
	ADMISSION_SESSION_LIMIT,      /* `max_sessions` are there, and this is none of them */
	ADMISSION_SESSION_BUSY,       /* a command runs in it */
	/* Of a question about sessions: */
	ADMISSION_SESSIONS,           /* `result` lists them, as in caller.lua */
	ADMISSION_SESSION_CLOSED,
};

/* A caller that the gateway vouches for, without a token: what its policy says holds, for the rest what a token has without flags. */
struct admission_identity {
	char kid[ADMISSION_KID_LEN + 1]; /* always the same for the same caller, and nobody else's; begins with TOKEN_IDENTITY_MARK */
	char actor[129];
	char policy[65];
};

struct admission_request {
	struct slice token;      /* as it stood in Authorization, without the scheme; its form is already checked (token.h) */
	const struct admission_identity *identity; /* or this in place of a token; NULL = none. Copied */
	const struct log_subject *subject; /* in the log; NULL = none. Copied, and its lease gets it */
	struct slice exec_id;    /* a UUIDv7; the lease gets its random part as its id. Empty = a lease id is made */
	/* Digests of its idempotency key, empty = none, and of its body; at most 64 bytes each. */
	struct slice key, fingerprint;
	bool look;               /* nothing is to run: what is known of the command exec_id is asked. Only token and address are read */
	bool kill;               /* … and it is to end, on whatever gateway it runs: by TERM, and when it was asked for before by KILL */
	struct slice program;    /* what the command allow list is asked about: argv[0], or "bash" for `command` */
	uint64_t want_ms;        /* wall time the caller asks for; the token's own cap lowers it */
	uint64_t wait_ms;        /* how long it may wait for a sandbox before that: the lease lasts for both */
	uint64_t input_bytes;    /* length of standard input; the token may allow less */
	const unsigned char *address; /* the client's, 16 bytes, IPv4 as ::ffff:a.b.c.d; NULL when not known: in no network */
	struct slice variables;  /* names of its environment, separated by blanks; more than ADMISSION_NAMES_MAX bytes are in no list */
	bool degradable;         /* nothing else that it needs is in Redis: it may run while that is away (degraded.h) */
	struct slice session;    /* its name; empty = none. With `look`, and "session" as exec_id: which is asked about, or ends */
	uint64_t session_idle_ms, session_age_ms; /* when it ends: so long after its last command, and after it began */
	/* Output of each stream: for a token without a limit of its own, and the most for any. */
	uint64_t usual_output_bytes, most_output_bytes;
};

/* What one lease needs to be settled; plain data, may be copied to another loop. */
struct admission_lease {
	char id[ADMISSION_LEASE_LEN + 1];
	char kid[ADMISSION_KID_LEN + 1];
	char actor[129];
	uint64_t granted_ms;
	char day[9];             /* UTC day of the reservation, yyyymmdd */
	bool degraded;           /* Redis does not know it: what it used is added when it is settled, once */
	char exec_id[37];        /* of a command with an idempotency key: what did not run may be tried again with it; else "" */
	struct log_subject subject; /* of its command, as far as this process knows it */
};

/* What a command in a session was granted. */
struct admission_session {
	char sprite[64]; /* the session's; "" = it has none yet */
	bool fresh;      /* no command has been started in it */
};

/* What a command may have in its sandbox; 0 = no limit. */
struct admission_caps {
	uint64_t processes;    /* of its user, all that there are in the Sprite */
	uint64_t file_bytes;   /* of each file that it writes */
	uint64_t memory_bytes; /* of each process: its own, writable */
};

struct admission_answer {
	enum admission_code code;
	const char *log_reason;  /* a word for our log only, never for the caller: "expired", "revoked", "bad-mac", "timeout" … */
	char kid[ADMISSION_KID_LEN + 1];
	char actor[129];
	char policy[65];         /* policy name, "" when the token has none */
	uint64_t policy_version; /* of the policy, or of the token's own rules when it has none */
	struct admission_lease lease; /* when granted */
	uint64_t output_bytes;        /* granted for each stream */
	uint64_t max_input_bytes;     /* 0 = none of its own, or one in shadow that did not refuse */
	struct admission_caps caps;   /* of the token; the gateway may have lower ones */
	uint64_t max_sessions;        /* 0 = the token may have none */
	uint64_t valid_ms;            /* until the token, or the secret that was shown, expires; 0 = it does not */
	const char *degraded;         /* Redis is away and degraded.h was asked: what it said; else NULL */
	struct admission_session session; /* when granted with one */
	char egress[ADMISSION_EGRESS_MAX + 1]; /* what the command may reach: domains and `defaults`, separated by blanks; "" = nothing */
	uint64_t retry_after_ms;      /* for ADMISSION_QUOTA and ADMISSION_UNAVAILABLE */
	char violated[128];           /* JSON array of policy names, e.g. ["rate","concurrency"]; "[]" when none */
	char shadowed[160];           /* the same of limits that would have refused, but only are looked at so far */
	char variable[129];           /* ADMISSION_VARIABLE_DENIED: which; cut to fit */
	struct slice result;          /* ADMISSION_FINISHED, ADMISSION_REPLAY, ADMISSION_SESSIONS; valid during the call */
	char prior[37];
	struct fields_state state;    /* limits and what is left, all 0 when the token is not known */
	/* Ready-made field values (fields.h), "" when the token is not known: no header is sent then. */
	char rate_limit[160];
	char rate_limit_policy[200];
	char exec_budget[200];
};

typedef void (*admission_done)(void *ctx, const struct admission_answer *answer);

struct admission;
struct admission_call;
struct unsettled;
struct degraded;

/* For metrics; each may be NULL. They run on the admission's loop. */
struct admission_observer {
	void (*on_command)(void *ctx, uint64_t duration_us, const char *error_kind); /* error_kind NULL = answered */
	void (*on_link)(void *ctx, bool up, unsigned breaker_state);               /* 0 closed, 1 open, 2 half-open */
	void (*on_reaped)(void *ctx, uint64_t leases);
	void (*on_known_bad)(void *ctx); /* refused without asking Redis: the same token was wrong a moment ago (known_bad.h) */
	void *ctx;
};

struct admission_options {
	uv_loop_t *loop;
	const char *redis_url;        /* redis://, rediss://, unix:// ; copied */
	unsigned timeout_ms;          /* one command, from the moment it is handed over */
	const struct secret *pepper;  /* borrowed for the life of the admission */
	size_t max_pending;
	size_t max_unsettled;
	struct unsettled
		*unsettled;  /* gets the settlements that are left when the admission is freed (unsettled.h); NULL = they are lost */
	struct degraded
		*degraded; /* decides while Redis is away, of all admissions of the process together; borrowed, NULL = nothing runs then */
	struct admission_observer observer;
	/* Redis has acknowledged a settlement; may be NULL. From the loop; it calls nothing of the admission. */
	void (*on_settled)(void *ctx, const struct admission_lease *lease);
	void *settled_ctx;
};

struct admission *admission_new(const struct admission_options *options);
void admission_free(struct admission *admission, void (*on_freed)(void *ctx), void *ctx);

/* Asks. *call may be given to admission_cancel() until `done` runs. The token is wiped from our memory after hashing. */
MUST_CHECK int admission_decide(struct admission *admission, const struct admission_request *request, admission_done done, void *ctx,
				struct admission_call **call);

/* The caller left: `done` will not run; a grant that arrives later is settled with nothing used and refunded. */
void admission_cancel(struct admission *admission, struct admission_call *call);

/* What a command ended with, for whoever asks later (ADMISSION_FINISHED). */
struct admission_result {
	struct slice exec_id;
	/* Copied; its first line is a status, and " unrun" when the command certainly did not run. Left out when Redis is away for long and
	 * many wait. */
	struct slice text;
	uint64_t keep_ms;
};

/* Gives back a lease: used_ms of wall time and out_bytes of output are charged, once, however often this is retried.
 * refund: the command certainly did not start; what its grant took from the rates is given back as well.
 * `result` may be NULL. Queued and retried until Redis acknowledges. -ENOMEM or ADMISSION_E_FULL: the lease then ends by itself, charged in
 * full. */
#define ADMISSION_E_FULL 1
MUST_CHECK int admission_settle(struct admission *admission, const struct admission_lease *lease, uint64_t used_ms, uint64_t out_bytes,
				bool refund, const struct admission_result *result);

/* Takes up the settlements that the last run has left in options.unsettled; for one admission of the process, at its start. -ENOMEM. */
MUST_CHECK int admission_restore(struct admission *admission);

/* Why a command is to end. */
struct admission_kill {
	bool stopped; /* its owner wants it ended, which may take its time */
	bool killed; /* it is to end at once */
	bool lost; /* the lease was found to have ended; else there is a mark in Redis */
	char by[ADMISSION_BY_MAX + 1]; /* who left the mark, as they say themselves; "" = not known */
};

/* A lease whose command runs or waits for its input: while it is held it is renewed, and it can be ended through Redis (`lease kill`,
 * `token revoke --kill`, admission_request.kill) within a second.
 * Lies in the caller's own struct. Set `lease` and `on_end`, zero the rest. on_end runs from the loop when `kill` says that the command is to
 * be stopped, and when it says that it is to be killed: once for each at most, and for no stop after a kill. It may let go. */
struct admission_hold {
	struct admission_lease lease;
	void (*on_end)(struct admission_hold *hold);
	struct admission_kill kill;
	/* The admission's own: */
	bool renewing;
	uint64_t renewed_ms; /* in loop time */
	struct admission_hold *prev, *next;
};

void admission_hold(struct admission *admission, struct admission_hold *hold);

/* Before admission_free(). */
void admission_let_go(struct admission *admission, struct admission_hold *hold);

/* Settlements not acknowledged yet. */
size_t admission_unsettled(const struct admission *admission);

/* Of them, those that Redis does not refuse again and again: drain waits for 0. */
size_t admission_owed(const struct admission *admission);

/* Is the link up right now (for health, never for a decision)? */
bool admission_link_up(const struct admission *admission);
