/*
 * lease - what the pool needs from whoever keeps the records that several instances share
 *
 * The pool sees only this table (docs/decisions/0012); exec/leases implements it over Redis, tests have their own. Without a table
 * the pool is alone: it asks nobody and notes nothing.
 *
 * The other side keeps the session that `join` began and puts it into everything else; the pool never sees it.
 *
 * Runs on:    the agent loop, calls and callbacks.
 * Re-entry:   no callback runs inside a call of this table. A callback may make any call.
 * Ownership:  what is passed is copied, what a callback is given is valid during it. A started operation calls `done` exactly once,
 *             within 10 s, also when Redis is away (LEASE_LOST), and `found` only before that. It cannot be taken back: the receiver
 *             tells late answers apart by its own bookkeeping.
 * Order:      operations and notes that name the same Sprite take effect in the order in which they were called, also when the
 *             connection broke in between: what was not acknowledged is sent again before anything later, or never.
 * Errors:     0, or -errno: nothing was asked and `done` is not called.
 * Units:      milliseconds, spans and not points in time, since Redis' clock and ours differ.
 */
#pragma once

#include "gateway/pool/state.h"
#include "gateway/sprites/provider.h"

#define LEASE_EXEC_ID_MAX 36
#define LEASE_TENANTS_MAX 32
#define LEASE_CLAIMANTS   2

enum lease_code {
	LEASE_OK,
	LEASE_REFUSED, /* for certain: nothing was changed */
	LEASE_LOST,    /* no answer in time, or one that makes no sense: it may have been done, or be done yet */
	LEASE_FENCED,  /* our session has ended: nothing was changed, and under this session nothing will ever be */
	LEASE_FLUSHED, /* the records are not those that were joined: nothing was changed */
};

/* Why a reservation was refused; the words of metrics and of Redis' answer are lower case. */
enum lease_refusal {
	LEASE_RECOVERING, /* after a flush or at the very beginning it is not known yet what exists */
	LEASE_FULL,       /* as many records as the maximum */
	LEASE_STOCK,      /* for stock only: enough is there or on its way, in all instances together */
	LEASE_CROWDED,    /* as many run as may, in all instances together; for stock also: another instance waits until fewer do */
	LEASE_BUDGET,     /* the creations of the window are used up, by all instances together */
	LEASE_CLOSED,     /* the provider has told one of the instances to wait */
	LEASE_REFUSALS,
};

/* One Sprite as it is recorded. */
struct lease_record {
	char name[PROVIDER_NAME_MAX + 1];
	enum pool_state state; /* never POOL_GONE */
	bool owned;            /* it was used and restored: only for `tenant` */
	uint64_t tenant;       /* of an owned one, and of a leased one; else 0 */
	unsigned uses;         /* commands it has run */
	uint64_t age_ms;       /* since it was created, or since it was reserved */
	uint64_t idle_ms;      /* warm: since it was parked. Only told, never written: the record's own clock decides */
	uint64_t parking;      /* which time of being parked was its last, higher than any before; 0 = it never was. Only told */
	/* Leased only: */
	uint64_t lease_ms;     /* it will have been given back in this time at the latest; 0 = not known */
	char exec_id[LEASE_EXEC_ID_MAX + 1]; /* "" = not known */
};

/* What this instance says of itself with each beat. */
struct lease_report {
	size_t hot_target;
	size_t leased;
	size_t waiting; /* claims for which nothing is on its way */
	uint64_t claimants[LEASE_CLAIMANTS]; /* tenants that have claimed lately (fair.h) */
	size_t claimant_count;
	uint64_t claims_per_1000s;      /* recent rate */
	uint64_t spent_nusd;            /* nano dollars, all of this process so far: a repeated beat adds nothing */
	uint64_t closed_ms;             /* the provider lets nobody create for so long; 0 = it does */
	struct provider_limit limit;    /* as it was last told or learnt; count 0 = not known */
	size_t running_limit;           /* Sprites that may run at once; 0 = not known. Likewise below */
};

struct lease_tenant {
	uint64_t id;
	size_t held; /* members that it has leased; 0 = it has only claimed lately */
};

/* What all instances are together, as of the beat that it answers. */
struct lease_fleet {
	size_t total;      /* what counts against the maximum: all records, and Sprites with our label that a list showed without one */
	size_t own;        /* records of this session, warm ones too */
	size_t warm;       /* nobody's, parked by the others */
	size_t ended;      /* records of sessions that have ended: somebody should adopt them */
	size_t instances;  /* sessions that have not ended, this one too */
	size_t others_hot_target;
	size_t others_leased; /* by their records, those of sessions that have just ended too */
	struct lease_tenant
		tenants[LEASE_TENANTS_MAX]; /* of the other instances, all together; should there be more, those that hold most */
	size_t tenant_count;
	uint64_t others_claims_per_1000s;
	size_t others_crowd; /* instances that wait until fewer Sprites run */
	size_t make_way;     /* that idle here are to go for them, or be on their way out already */
	uint64_t spent_nusd;  /* this UTC day, by all */
	uint64_t day_left_ms; /* that day goes on for so long */
	uint64_t closed_ms;  /* as in the report, the longest that any has said and that is not over */
	bool recovering;   /* nothing is reserved or stolen at present */
	bool list;         /* it is this instance's turn to list and to sweep; told once */
	bool superseded;   /* another process has joined as this instance later: drain, and say why */
};

struct lease_result {
	enum lease_code code;
	enum lease_refusal refusal;        /* of reserve, LEASE_REFUSED */
	uint64_t retry_after_ms;           /* of reserve, take and run, LEASE_REFUSED: 0 = not known */
	const struct lease_fleet *fleet;   /* of join and beat, LEASE_OK; else NULL */
	const struct lease_record *record; /* of take, LEASE_OK; else NULL */
	bool fresh;   /* of join: there were no records at all (new, or flushed) */
	const char *detail;                /* a plain phrase for the log; never NULL */
};

typedef void (*lease_done)(void *ctx, const struct lease_result *result);

/* One record, of adopt: it is this session's now. */
typedef void (*lease_adopted)(void *ctx, const struct lease_record *record);

/* One name that has its second strike, of sweep. `recorded`: it is one of this session's records, and two lists did not show it. Else
 * lists showed it twice and there was no record; it has one now, of this session, in POOL_DESTROYING. */
typedef void (*lease_struck)(void *ctx, const char *name, bool recorded);

struct lease_wish {
	const char *name; /* the Sprite to be created */
	size_t max;       /* POOL_MAX */
	size_t stock;     /* for stock: refuse when the idle ones of all instances and those on their way are as many; 0 = for a waiter */
	uint64_t create_limit;     /* creations of a window, by all instances together; 0 = none is known */
	uint64_t create_window_ms;
	size_t running_limit;
};

struct lease_want {
	const char *name; /* NULL: the one parked last of those that another session has parked, nobody's, and of this generation */
	const char *generation; /* as it stands in names (member_name.h) */
	enum pool_state to;     /* POOL_PREPARING: to wake it; POOL_DESTROYING */
	size_t running_limit;
	bool for_stock;         /* nobody waits for it */
};

/* May run at any time but inside a call. */
struct lease_listener {
	/* A note or a forgetting was refused: the record is not this session's (another one took it while it was warm, or adopted it),
	 * or there is none. */
	void (*revoked)(void *ctx, const char *name);
	/* Notes could not be kept (no memory) or may have been lost: the records must be written again. */
	void (*lost)(void *ctx);
	/* A note was answered so; join again. Operations tell the same by their own results. */
	void (*fenced)(void *ctx);
	void (*flushed)(void *ctx);
	void *ctx;
};

struct lease_ops {
	/* Copied; NULL = nobody listens any more: no call of it runs from now on. */
	void (*listen)(void *self, const struct lease_listener *listener);

	/* Begins a new session, with a new epoch, whatever was before; the earlier session of this process ends when its time is over. Notes
	 * that were not sent are dropped. First call, and again after LEASE_FENCED and LEASE_FLUSHED. LEASE_OK: counts as a beat. */
	int (*join)(void *self, lease_done done, void *ctx);

	/* Renews the session, never revives it. The pool calls it every 5 s and measures from the call, so it may be sent late but not
	 * early; one at a time. */
	int (*beat)(void *self, const struct lease_report *report, lease_done done, void *ctx);

	/* Records the Sprite in POOL_INTENT, all or nothing. The same name again: LEASE_OK if it is recorded by this session in whatever
	 * state, decided anew if it is not. */
	int (*reserve)(void *self, const struct lease_wish *wish, lease_done done, void *ctx);

	/* The state of a member has changed. Never awaited: kept until it is acknowledged, of each name the last only. Takes effect only
	 * on a record of this session; else `revoked`. */
	void (*note)(void *self, const struct lease_record *record);

	/* The Sprite does not exist, for certain: its record goes. Otherwise like a note. A record that is not there is no news. */
	void (*forget)(void *self, const char *name);

	/* A warm one becomes this session's, in state `to`. LEASE_REFUSED: it is not warm, or not there; without a name: there is none.
	 * The same name again, already this session's in `to`: LEASE_OK. Without a name a lost answer may leave a record that the pool
	 * knows nothing of; adopt with `own` finds it. LEASE_CROWDED: it is as it was. */
	int (*take)(void *self, const struct lease_want *want, lease_done done, void *ctx);

	/* A Sprite of a named session, in use by a command, is about to be woken. LEASE_REFUSED: not now, and it counts as paused. */
	int (*run)(void *self, const char *name, size_t running_limit, lease_done done, void *ctx);

	/* Takes over records of ended sessions, `most` at most: warm ones stay warm, others become POOL_DESTROYING. With `own` all records
	 * of this session are told as well, as they stand, not counted in `most`. */
	int (*adopt)(void *self, size_t most, bool own, lease_adopted found, lease_done done, void *ctx);

	/* `names` are all Sprites of the provider that carry this pool's label: one complete list, asked for after `list` was told. Strikes
	 * those without a record and records without a Sprite, second strikes a minute after the first at the soonest; never deletes. */
	int (*sweep)(void *self, const char *const *names, size_t count, lease_struck found, lease_done done, void *ctx);

	/* Writes records that are missing and corrects this session's own; with those of other sessions nothing is done but `revoked`.
	 * After each join, and when `lost`. Also while recovering. */
	int (*restore)(void *self, const struct lease_record *records, size_t count, lease_done done, void *ctx);

	/* Ends the session at once: what it leaves may be adopted. Notes made before are sent first. */
	int (*leave)(void *self, lease_done done, void *ctx);
};

struct lease_table {
	const struct lease_ops *ops;
	void *self;
};
