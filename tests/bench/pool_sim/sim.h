/*
 * sim - one run of the pool in virtual time: what its parts share
 *
 * trace     what claims come when, and how long the provider takes
 * events    what happens next; the provider's limit of creations
 * sessions  Sprites that commands keep
 * pooled    the machine under test
 * oracle    what knows the future
 * erlang    the pool that Erlang's formula is about
 * report    the figures of the run, as one line of JSON
 *
 * Runs once: nothing is freed before the process ends.
 */
#pragma once

#include "gateway/pool/machine.h"

#define SECOND      1000000.0
#define DEADLINE_S  30
#define HOT_S       0.005 /* what even a hot claim adds */
#define DIAL_S      0.1
#define PAUSE_S     30    /* without an open channel the provider pauses a Sprite after this */
#define TENANTS_MAX 10
#define MAX_EVENTS  400000

/* --- trace ------------------------------------------------------------------------------------ */

enum took { CREATE, PREPARE, WAKE, RESTORE, DESTROY, TIMES };

struct latency {
	double median_s, p99_s; /* lognormal */
};

struct claim {
	struct machine_waiter waiter;
	double at_s, service_s;
	double think_s;       /* of a session's command: after the one before it has ended */
	double added_s;       /* before the command began; negative = refused; 0 = not decided */
	double back_s;        /* it was refused and came back then; 0 = not */
	double told_s;        /* … which the first refusal told it to do after this time */
	unsigned tenant, returns;
	enum pool_tier tier;
	struct pool_member *member;
	struct claim *session; /* the first command of its session; NULL = it has none */
	struct claim *next;    /* of its session */
	double used_s;         /* of a first command: its session's last command ended then */
	bool busy;             /* likewise: a command of its session runs */
};

/* A command of a session that is there already. */
static inline bool claim_goes_on(const struct claim *claim)
{
	return claim->session && claim->session != claim;
}

struct shape {
	const char *name;
	void (*claims)(const struct shape *shape);
	double rest_s, end_s; /* the first fill the pool and teach it: not counted */
	double service_s;
	double rate;      /* claims, or sessions, a second */
	double every_s;   /* between bursts */
	unsigned size[2]; /* of a burst, or commands of a session: least and most */
	double spread_s;  /* how long a burst takes */
	double think_s;   /* between the commands of a session */
	unsigned tenants, create_limit, running_limit, max;
	const struct latency *latencies; /* by enum took */
};

/* NULL: no such shape. */
const struct shape *trace_make(const char *name, uint64_t seed);
/* From now on each takes just so long. */
void trace_fix(enum took kind, double seconds);

/* Each kind has its own sequence, which is the same whatever the policy. */
double trace_took(enum took kind);
double trace_mean(enum took kind);

/* --- what all share --------------------------------------------------------------------------- */

struct sim {
	const struct shape *shape;
	struct claim *claims; /* first those that come by themselves, in order of time, then those that follow in their session */
	size_t count, first_count;
	double now_s;
	unsigned returns; /* so often a refused claim comes back */
	struct {
		double hot_idle_s, running_idle_s, leased_s, target_s, counted_s;
		uint64_t creates, refused_creates, restores;
		double formula; /* share of misses by Erlang's formula */
		size_t stock;
		size_t max_alive, max_running;
	} figures;
};

extern struct sim sim;

/* The figures are of what happens now. */
static inline bool sim_counts(void)
{
	return sim.now_s >= sim.shape->rest_s;
}

void sim_measure_alive(size_t alive, size_t running);

/* --- events ----------------------------------------------------------------------------------- */

enum kind { ARRIVE, OUTCOME, END, MADE, FREED, TOKEN, AWAKE, PAUSED, FORGOTTEN, REMOVED };

struct event {
	double at_s;
	uint64_t order;
	enum kind kind;
	struct claim *claim;
	struct machine_event outcome;
};

void events_push(struct event event);
/* NULL: nothing happens any more. */
const struct event *events_peek(void);
struct event events_pop(void);
/* Of those that come by themselves. */
void events_push_claims(void);

/* Seconds until one may be created. */
double creation_wait_s(void);
bool creation_take(void);

/* --- sessions --------------------------------------------------------------------------------- */

/* A first command got a Sprite, which is the session's from now on. */
void sessions_begin(struct claim *first);
/* A further command came: the session's Sprite serves it, for an oracle always at once. */
void sessions_serve(struct claim *claim, bool at_once);
/* A command of a session has ended. */
void sessions_end(struct claim *claim);
/* PAUSED, FORGOTTEN, REMOVED: other Sprites are kept, or run, than before. */
void sessions_handle(const struct event *event);
/* Nothing changed between these two times: what they cost. */
void sessions_integrate(double from_s, double to_s);
size_t sessions_total(void);
/* In use; those that run, as the gateway counts them; and those that the provider has not paused yet. */
size_t sessions_busy(void);
size_t sessions_counted(void);
size_t sessions_running(void);

/* --- policies --------------------------------------------------------------------------------- */

int pooled_run(const struct machine_options *options);
/* `rests`: it knows a burst only from its first claim on, and wakes at that moment what all of it will need. Nobody is faster who keeps
 * nothing running between bursts. */
void oracle_run(bool restores, bool rests);
void erlang_run(void);

void report_print(void);
/* The claims that come by themselves, and the limits. */
void report_trace(void);
