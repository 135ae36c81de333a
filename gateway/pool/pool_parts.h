/*
 * pool_parts - what the parts of the machine's driver call in each other; nobody else includes this
 *
 * pool.c carries out actions and answers claims; pool_operations.c asks the provider; pool_leases.c asks and tells whoever keeps the
 * records of a shared pool.
 */
#pragma once

#include "gateway/pool/machine.h"
#include "gateway/pool/member_name.h"
#include "gateway/pool/pool.h"

enum pool_verb { POOL_VERB_CREATE, POOL_VERB_PREPARE, POOL_VERB_WAKE, POOL_VERB_RESTORE, POOL_VERB_DESTROY, POOL_VERB_LIST };

/* What the provider has not answered yet. It cannot be taken back, so it may outlive the pool: `pool` is NULL then. */
struct pool_operation {
	struct pool_operation *prev, *next;
	struct pool *pool;
	struct pool_member *member; /* NULL for a listing */
	enum pool_verb verb;
	uint64_t asked_us;
};

struct pool_opening;
struct pool_question;

/* Of a shared pool; else the table is empty. */
struct pool_leases {
	struct lease_table table;
	struct pool_question *questions; /* not answered yet */
	uint64_t session;                /* how many we have had */
	bool joined, joining, beating, ended, superseded;
	uint64_t beat_us; /* the next beat or join is due */
	uint64_t said_nusd; /* by the last beat that was begun */
	bool counting;      /* what a beat says is added to what the one before said: this is not the first of its session */
	char (*names)[PROVIDER_NAME_MAX + 1]; /* of the listing that is under way */
	size_t count, room;
	bool incomplete;
};

struct pool_claim {
	struct machine_waiter waiter; /* in the machine's queue until `ready` */
	struct pool_claim *prev, *next;
	pool_claim_done done;
	void *ctx;
	struct pool_grant grant;
	bool ready;
};

struct pool {
	struct provider provider;
	struct pool_observer observer;
	bool (*is_kept)(void *ctx, const char *name);
	void *kept_ctx;
	uint64_t (*now_us)(void *ctx);
	void *now_ctx;
	char instance[MEMBER_NAME_INSTANCE_MAX + 1];
	char gen[MEMBER_NAME_GEN_LEN + 1];
	struct machine machine;
	uv_timer_t timer;
	/* Answers go out in `check`, after the poll; `idle` keeps that poll from blocking. Neither costs a system call. */
	uv_idle_t idle;
	uv_check_t check;
	struct pool_claim *ready;
	struct pool_leases leases;
	uint64_t armed_us;
	uint64_t impossible; /* as told to the observer so far */
	struct pool_operation *operations;
	struct pool_opening *openings;
	size_t handles;
	bool acting, unauthorized, stopped, freeing;
	size_t left;
	void (*on_stopped)(void *ctx, size_t left);
	void *stopped_ctx;
	void (*on_freed)(void *ctx);
	void *freed_ctx;
};

/* --- pool.c --- */

uint64_t pool_clock(const struct pool *pool);
void pool_step(struct pool *pool, struct machine_event event);

/* What is ready is delivered on the next turn of the loop. */
void pool_wake(struct pool *pool);

/* --- pool_operations.c --- */

void pool_operate(struct pool *pool, struct pool_member *member, enum pool_verb verb);
void pool_forget_operations(struct pool *pool);

/* `member` NULL: all. */
void pool_forget_openings(struct pool *pool, const struct pool_member *member);
MUST_CHECK int pool_name_member(struct pool *pool, struct pool_member *member);
void pool_close_sandbox(struct pool_member *member);

/* --- pool_leases.c --- */

/* Joins, and beats from then on; the pool fills when that was answered. */
void pool_leases_start(struct pool *pool);
void pool_ask(struct pool *pool, const struct machine_action *action);

/* A listing of everything begins; one Sprite of it; that was all. */
void pool_leases_listing(struct pool *pool);
void pool_leases_found(struct pool *pool, const char *name, bool ours);
void pool_leases_listed(struct pool *pool);

void pool_leases_tick(struct pool *pool);
uint64_t pool_leases_due(const struct pool *pool);

/* The pool has stopped: the session ends, then on_stopped runs. */
void pool_leave(struct pool *pool);

/* Nothing is heard any more. */
void pool_leases_end(struct pool *pool);
