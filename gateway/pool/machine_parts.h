/*
 * machine_parts - what the parts of the machine call in each other; nobody else includes this
 */
#pragma once

#include "gateway/pool/machine.h"

#define MS     UINT64_C(1000)
#define SECOND (1000 * MS)

#define RETRY_AFTER_MIN     1000
#define RETRY_AFTER_MAX     3600000
#define RETRY_AFTER_UNKNOWN 300000
#define RETRY_OBEYED_MAX    3600000

#define LINGER_US (35 * SECOND) /* a parked member may run this long before the provider pauses it */
#define SAID_US   (3600 * SECOND) /* the provider's word on how many may run or be paused is believed this long */

/* Expected times until they have been measured. */
#define CREATE_GUESS_US  (1500 * MS)
#define PREPARE_GUESS_US (1000 * MS)
#define WAKE_GUESS_US    (400 * MS)
#define RESTORE_GUESS_US (2 * SECOND)
#define DESTROY_GUESS_US (500 * MS)
#define HOLD_GUESS_US    (5 * SECOND)

/* --- machine.c --- */

void machine_act(struct machine *machine, struct machine_action action);

/* An operation of this member begins. */
void machine_operate(struct machine *machine, struct pool_member *member, enum machine_action_type type);

/* Every change of state goes through here. */
bool machine_move(struct machine *machine, struct pool_member *member, enum pool_state to, uint64_t now_us);

/* The only way out of WARM: to be woken (POOL_PREPARING) or destroyed, at once or when it has been asked for. False: not now. */
bool machine_take(struct machine *machine, uint64_t now_us, struct pool_member *member, enum pool_state to);

/* An idle member is destroyed. False: not now. */
bool machine_let_go(struct machine *machine, uint64_t now_us, struct pool_member *member);

/* The provider's word on how many may run or be paused. */
void machine_learn(struct machine *machine, uint64_t now_us, const struct provider_limit *limit, bool refused);

/* How many more Sprites may exist. */
size_t machine_room(const struct machine *machine);

/* A member that was taken is woken, or destroyed. */
void machine_taken_over(struct machine *machine, uint64_t now_us, struct pool_member *member, enum pool_state to);

/* A member in this state has the outcome of an operation; false: it has not, which is a bug. */
bool machine_finish(struct machine *machine, struct pool_member *member, enum pool_state state);

/* It cannot become ready any more: the pool is being stopped, or its record is another's. */
bool machine_is_doomed(const struct machine *machine, const struct pool_member *member);

/* --- machine_leases.c --- */

/* Asks for its creation, or for having it. */
void machine_reserve(struct machine *machine, struct pool_member *member);
bool machine_ask(struct machine *machine, uint64_t now_us, struct pool_member *member, enum pool_state to);

/* Asks for a member that another machine has parked; false when there is none. */
bool machine_steal(struct machine *machine, uint64_t now_us);

void machine_reserved(struct machine *machine, uint64_t now_us, const struct machine_event *event);
void machine_taken(struct machine *machine, uint64_t now_us, const struct machine_event *event);
void machine_fleet(struct machine *machine, uint64_t now_us, const struct machine_event *event);
void machine_adopted(struct machine *machine, uint64_t now_us, const struct machine_event *event);
void machine_adoption(struct machine *machine, uint64_t now_us, const struct machine_event *event);
void machine_struck(struct machine *machine, uint64_t now_us, const char *name);
void machine_revoked(struct machine *machine, uint64_t now_us, const char *name);
void machine_fenced(struct machine *machine, uint64_t now_us);
void machine_flushed(struct machine *machine, uint64_t now_us);
/* Leaves to the others what they can use. */
void machine_leave_parked(struct machine *machine, uint64_t now_us);
void machine_pass_leases(struct machine *machine, uint64_t now_us);
uint64_t machine_lease_due(const struct machine *machine);

/* --- machine_claims.c --- */

void machine_claim(struct machine *machine, uint64_t now_us, struct machine_waiter *waiter);
/* What it was granted was lost before it was handed over. */
void machine_claim_again(struct machine *machine, uint64_t now_us, struct machine_waiter *waiter);
void machine_cancel(struct machine *machine, struct machine_waiter *waiter);

/* How many more members this tenant may take now. */
size_t machine_may_take(const struct machine *machine, const struct fair_tenant *tenant, uint64_t now_us);

/* Hands hot members to those who wait and may have them. */
void machine_serve(struct machine *machine, uint64_t now_us);

/* Refuses every waiter whose deadline has come, or comes before it could be served at best. */
void machine_review_waiters(struct machine *machine, uint64_t now_us);
void machine_refuse_all(struct machine *machine, int refusal);

/* --- machine_supply.c --- */

struct stock {
	size_t hot;    /* fresh ones, nobody's: what was used and restored serves one tenant only */
	size_t warm;   /* likewise */
	size_t waking; /* nobody's, by a wake that is not late */
	size_t late;
	size_t coming; /* being created, prepared for the first time, or soon to be prepared once more */
};

struct stock machine_take_stock(const struct machine *machine);

/* Members on their way that only this tenant may have. */
size_t machine_owned_on_way(const struct machine *machine, uint64_t tenant);

/* What was reserved is created. */
void machine_begin(struct machine *machine, uint64_t now_us, struct pool_member *member);
bool machine_may_begin(const struct machine *machine, uint64_t now_us);

/* Wakes and creates what waiters and the targets want. */
void machine_fill(struct machine *machine, uint64_t now_us);

/* --- machine_ready.c --- */

void machine_created(struct machine *machine, uint64_t now_us, const struct machine_event *event);
void machine_prepare(struct machine *machine, uint64_t now_us, struct pool_member *member);
void machine_prepared(struct machine *machine, uint64_t now_us, const struct machine_event *event);
void machine_restored(struct machine *machine, uint64_t now_us, const struct machine_event *event);
void machine_lost(struct machine *machine, uint64_t now_us, struct pool_member *member, struct machine_waiter *waiter);
/* MACHINE_OPENED: used, with a network that was open. */
enum machine_use { MACHINE_UNUSED, MACHINE_USED, MACHINE_OPENED };
void machine_release(struct machine *machine, uint64_t now_us, struct pool_member *member, enum machine_use use);

/* A granted member leaves the pool for good. */
void machine_keep(struct machine *machine, uint64_t now_us, struct pool_member *member);

/* As many are paused, by all machines together, as may be. */
bool machine_warm_is_full(const struct machine *machine);

/* The warm tier has a place for it. */
bool machine_may_park(const struct machine *machine, const struct pool_member *member, const struct stock *stock);

/* --- machine_retire.c --- */

/* Somebody else waits for a place to run: what idles here goes, the oldest first, until so many are on their way out. */
void machine_make_way(struct machine *machine, uint64_t now_us, size_t count);

/* Replaces what is too old, and lets go of what is too many. */
void machine_retire(struct machine *machine, uint64_t now_us);
void machine_pass_supply(struct machine *machine, uint64_t now_us);
uint64_t machine_supply_due(const struct machine *machine);

/* --- machine_destroy.c --- */

void machine_start_listing(struct machine *machine);
void machine_start_destroys(struct machine *machine);
void machine_destroyed(struct machine *machine, uint64_t now_us, const struct machine_event *event);
/* Those whose creation was lost are asked about more often, now that the pool is being stopped. */
void machine_hasten_doubtful(struct machine *machine, uint64_t now_us);

void machine_found(struct machine *machine, uint64_t now_us, const char *name);
void machine_listed(struct machine *machine, uint64_t now_us, const struct machine_event *event);
void machine_pass_destroys(struct machine *machine, uint64_t now_us);
uint64_t machine_destroy_due(const struct machine *machine);

/* Obeyed, but for an absurd one. */
static inline uint64_t machine_retry_us(uint64_t retry_after_ms)
{
	return (retry_after_ms < RETRY_OBEYED_MAX ? retry_after_ms : RETRY_OBEYED_MAX) * MS;
}

static inline uint64_t machine_later(uint64_t a_us, uint64_t b_us)
{
	return a_us > b_us ? a_us : b_us;
}

static inline bool is_due(uint64_t at_us, uint64_t now_us)
{
	return at_us && at_us <= now_us;
}

static inline uint64_t sooner(uint64_t next, uint64_t at_us)
{
	return at_us && at_us < next ? at_us : next;
}
