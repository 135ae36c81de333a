/*
 * machine - the pool's mind: which member is in which state, who waits, what to do next
 *
 * Pure: no I/O, no clock. machine_step(now, event) changes the state and leaves actions, which the driver (pool.c) carries out
 * in order and whose outcome comes back as events. Time passes in one place, the event MACHINE_TICK: every other event uses
 * `now` only to note when something happened.
 *
 * With options.shared the pool belongs to several machines (lease.h): creating a Sprite, taking one out of WARM and adopting one are
 * asked for before; every other change of state is noted afterwards. Nothing is granted, woken or created later than LEASE_GRANT_US
 * after the last acknowledged beat was begun.
 *
 * Its parts: machine_claims (who gets what), machine_supply (what is woken and created), machine_ready (how that ended, and what
 * becomes of used members), machine_retire (what is too old or too many), machine_destroy (destroying, and what an earlier run
 * left), machine_leases (what is shared), and here the rest: events, sizes, stopping.
 *
 * Owns:       the roster of members. Waiters belong to the driver and must stay until granted, refused or canceled.
 * Lifetime:   machine_init … machine_deinit.
 * Bounds:     max + MACHINE_LEFTOVERS members, max_waiters waiters; no allocation after machine_init.
 * Invariants: waiters are oldest first; nobody waits while a member is hot that it may have; a member that was used is only ever
 *             granted to the tenant that used it; at most one operation of a member is under way (busy); a record in GONE is
 *             reused from the next step on.
 */
#pragma once

#include "gateway/pool/bookings.h"
#include "gateway/pool/fair.h"
#include "gateway/pool/gate.h"
#include "gateway/pool/lease.h"
#include "gateway/pool/outlook.h"
#include "gateway/pool/quantile.h"
#include "gateway/pool/roster.h"
#include "gateway/pool/sizing.h"

/* How many Sprites of an earlier run are taken in at once; the rest come with the next listing. */
#define MACHINE_LEFTOVERS 64

/* Records that are adopted at once. */
#define MACHINE_ADOPTS 25

/* Announced claims that are remembered at once. */
#define MACHINE_INTENTS 4

struct machine_waiter {
	struct machine_waiter *prev, *next;
	uint64_t tenant; /* opaque */
	uint64_t deadline_us;
	uint64_t since_us;
	bool crowded;               /* the machine's: it had to wait for room, a limit or its fair share */
	bool booked;                /* the machine's: it was refused before, and comes back when it was told to */
	struct fair_tenant *record; /* the machine's */
};

struct machine_options {
	struct sizing_options sizing; /* its create_limit is where the budget begins; the provider's word replaces it */
	size_t max_waiters;
	uint64_t max_age_us;
	uint64_t day_nusd;     /* money for 24 hours, in nano dollars; 0 = no limit */
	bool recycle;          /* members may be restored for the tenant that used them */
	unsigned max_uses;     /* of a restored member; 0 = 50 */
	bool shared;           /* by several machines */
	uint64_t seed;         /* of the jitter; not 0 */
};

enum machine_event_type {
	MACHINE_START,
	MACHINE_STOP,      /* deadline_us */
	MACHINE_TICK,
	MACHINE_RESIZE,    /* hot, warm: as in struct sizing_options, at most its max */
	MACHINE_INTENT,    /* deadline_us: a claim will probably come before */
	MACHINE_CLAIM,     /* waiter, with its tenant and deadline_us set */
	MACHINE_CANCEL,    /* waiter, not granted yet */
	MACHINE_RETURN,    /* member: granted, but never handed over */
	MACHINE_RELEASE,   /* member: used */
	MACHINE_LOST,      /* member: the channel of an idle one broke; waiter: it was granted to it, but not handed over yet */
	MACHINE_KEEP,      /* member: granted, and not the pool's any more */
	MACHINE_CREATED,   /* member, code, retry_after_ms, limit, unsent, unanswered */
	MACHINE_PREPARED,  /* member, code, retry_after_ms: of a preparation or a wake */
	MACHINE_RESTORED,  /* member, code */
	MACHINE_DESTROYED, /* member, code, retry_after_ms */
	MACHINE_FOUND,     /* name: a Sprite of this instance's */
	MACHINE_LISTED,    /* code */
	MACHINE_KEPT,      /* kept, running: see `kept` of the machine */
	/* Of a shared pool only: */
	MACHINE_FLEET,     /* fleet, sent_us, said_nusd, counted: a join or beat that was begun then has been acknowledged */
	MACHINE_RESERVED,  /* member, answer, refusal, retry_after_ms */
	MACHINE_TAKEN,     /* member, answer, and the record */
	MACHINE_ADOPTED,   /* record, outdated: it is ours now, or (adopt with `own`) was all the time */
	MACHINE_ADOPTION,  /* answer: those were all */
	MACHINE_STRUCK,    /* name */
	MACHINE_REVOKED,   /* name */
	MACHINE_CROWDED,   /* a Sprite that is kept was refused a place to run */
	MACHINE_FENCED,    /* the session has ended */
	MACHINE_FLUSHED,   /* the records are gone */
};

struct machine_event {
	enum machine_event_type type;
	struct pool_member *member;
	struct machine_waiter *waiter;
	uint64_t deadline_us;
	size_t hot, warm;
	const char *name;
	enum provider_code code;
	uint64_t retry_after_ms;
	struct provider_limit limit;
	enum lease_code answer;
	enum lease_refusal refusal;
	const struct lease_fleet *fleet;
	const struct lease_record *record;
	size_t kept, running;
	bool opened;   /* of a release: its network was open, it is for nobody else */
	bool outdated; /* prepared in another way than now */
	uint64_t sent_us;
	uint64_t said_nusd; /* of machine.spend.total_nusd, what the beat said */
	bool counted;       /* … and what it had not said before was added up; not by a join, nor by the first beat after one */
	bool unsent;     /* the operation was never begun: it certainly had no effect */
	bool unanswered; /* as in struct provider_result */
};

enum machine_action_type {
	MACHINE_DO_LIST,
	MACHINE_DO_CREATE,  /* member: give it a name and create it */
	MACHINE_DO_PREPARE, /* member */
	MACHINE_DO_WAKE,    /* member: open its channel again and verify it; comes back as MACHINE_PREPARED */
	MACHINE_DO_RESTORE, /* member: restore its clean checkpoint and verify it */
	MACHINE_DO_CLOSE,   /* member: close its sandbox, if it has one */
	MACHINE_DO_DESTROY, /* member */
	MACHINE_DO_GRANT,   /* waiter, member, tier; the waiter is the driver's again */
	MACHINE_DO_REFUSE,  /* waiter, refusal, retry_after_ms; the waiter is the driver's again */
	MACHINE_DO_STOPPED, /* left */
	/* Of a shared pool only: */
	MACHINE_DO_RESERVE, /* member, stock: give it a name, unless it has one, and ask for its creation */
	MACHINE_DO_TAKE,    /* member, state, stock: ask for it; without a name: for one that another has parked */
	MACHINE_DO_NOTE,    /* member, state */
	MACHINE_DO_FORGET,  /* member */
	MACHINE_DO_ADOPT,   /* most, own */
	MACHINE_DO_REVOKE,  /* member: leased, but not ours any more; whoever has it is told */
	MACHINE_DO_ABANDON, /* member: parked, and neither destroyed nor left to others; it may still exist */
};

struct machine_action {
	enum machine_action_type type;
	struct pool_member *member;
	struct machine_waiter *waiter;
	enum pool_tier tier;
	int refusal; /* POOL_E_* */
	uint64_t retry_after_ms;
	size_t left;
	enum pool_state state;
	size_t stock; /* 0 = for somebody who waits */
	size_t most;
	bool own;
};

struct machine {
	struct machine_options options;
	struct roster roster;
	struct fair fair;
	struct bookings bookings;
	struct machine_waiter *waiters;
	size_t waiting;
	struct gate gate;
	struct demand demand;
	struct spend spend;
	struct sizing target;
	struct estimate create, prepare, wake, restore, hold, destroy;
	struct quantile wakes, supplies; /* a supply is a creation with its preparation */
	uint64_t *ready_us; /* scratch of the two outlooks, expected and optimistic */
	bool begun, stopping, overdue, stopped;
	bool worse; /* the outlook of waiters may have got worse in this step */
	uint64_t now_us;         /* of the last step */
	uint64_t surplus_us;     /* more are hot than wanted since then; 0 = not */
	uint64_t excess_us;      /* more are warm than a fixed size wants, likewise */
	uint64_t blocked_us;     /* something wanted may begin then; 0 = nothing waits for time */
	uint64_t review_us;      /* next decision about the sizes; 0 = they are fixed */
	uint64_t short_us;       /* less stock than wanted, and no progress since then; 0 = not */
	uint64_t stop_us;        /* deadline of stopping; 0 = none */
	/* Sprites that may run, by a list and by a refusal, and be paused, at once, as the provider said; a limit of 0 = it has not, or long ago */
	struct machine_said {
		size_t limit;
		uint64_t until_us; /* it is believed */
	} running, refused, paused;
	uint64_t intents_us[MACHINE_INTENTS]; /* when each ends; 0 = none */
	struct {
		bool busy, incomplete;
		bool complete; /* one has told all that an earlier run left */
		unsigned attempts;
		uint64_t wait_us; /* the next listing waits for this; 0 = none planned */
	} list;
	struct {
		unsigned failures; /* in a row; one burst of failures counts once */
		uint64_t failed_us; /* the last one */
		uint64_t wait_us; /* nothing is restored before */
	} restoring;
	struct {
		bool joined;
		uint64_t sent_us; /* the last acknowledged beat was begun then; 0 = none of this session */
		struct lease_fleet fleet;
		uint64_t wait_us[2]; /* no reservation before, for stock and for those who wait; 0 = now */
		uint64_t place_us[2]; /* likewise nothing that would run: as many run as may */
		size_t stealing; /* under way */
		bool adopting;
		bool stale; /* what an adoption tells may be older than what we have done since */
		bool orphans; /* there may be records of ours that we do not know */
	} lease;
	struct {
		size_t total; /* Sprites that are not the pool's but count against its maximum, of a shared one those of all machines */
		size_t running; /* Sprites of that kind that run here and now */
	} kept;
	size_t destroys;
	size_t abandoned; /* members */
	uint64_t claims, hedges, restores;
	uint64_t random;
	struct machine_action *actions;
	size_t action_cap, action_head, action_count;
};

/* -ENOMEM, -EINVAL for options out of their bounds (pool.h). */
MUST_CHECK int machine_init(struct machine *machine, const struct machine_options *options);
void machine_deinit(struct machine *machine);

void machine_step(struct machine *machine, uint64_t now_us, const struct machine_event *event);

/* Takes the oldest action that is left; false when there is none. While carrying out an action the driver may make the step
 * that tells its outcome; all actions are taken before any other step. */
bool machine_next_action(struct machine *machine, struct machine_action *action);

/* When the next MACHINE_TICK is needed; UINT64_MAX = never. */
uint64_t machine_next_due(const struct machine *machine);

#define LEASE_GRANT_US UINT64_C(10000000)

/* The last acknowledged beat is young enough to grant, wake and create. */
bool machine_is_fresh(const struct machine *machine, uint64_t now_us);

/* How many should be hot now: the target, or more while claims are announced. */
size_t machine_hot_wanted(const struct machine *machine);

/* Less stock than wanted for a minute, and nothing became ready in that time. */
bool machine_is_stalled(const struct machine *machine, uint64_t now_us);

/* Sprites that may run, or be paused, at once, by the settings or the provider's word, whichever is less; 0 = not known. */
size_t machine_running_limit(const struct machine *machine);
size_t machine_warm_limit(const struct machine *machine);

/* Sprites that run with a claim, or are kept and run. */
size_t machine_running_used(const struct machine *machine);

/* Sprites that run without a claim: on their way, hot, or parked so recently that the provider may not have paused them yet. */
size_t machine_running_idle(const struct machine *machine, uint64_t now_us);

/* How long they ran, added up, while nothing changed. */
uint64_t machine_idle_us(const struct machine *machine, uint64_t from_us, uint64_t to_us);
