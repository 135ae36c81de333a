/*
 * pool_store_parts - what a shared pool asks of Redis, on its way there and back; only pool_store.c and pool_store_flight.c include it
 *
 * pool_store.c makes items of what is asked and noted and puts them into the queue; pool_store_flight.c sends them, one call after the
 * other, reads what comes back and gives up what waits too long.
 *
 * Owns:      an item belongs to the list it is in, the queue or the flight.
 * Re-entry:  callbacks run from the link's answers and from the timer, never inside a call of pool_store.h.
 */
#pragma once

#include "policy/pool_store.h"

#include "policy/keys.h"
#include "policy/link.h"

#define WORD_MAX  64
#define ENTRY_MAX 256
#define WORDS_MAX 11

enum op { JOIN, BEAT, RESERVE, NOTE, TAKE, RUN, ADOPT, SWEEP, RESTORE, LEAVE };

struct item {
	struct item *prev, *next;
	enum op op;
	char name[POOL_REPLY_NAME_MAX + 1]; /* the Sprite it is about, "" = none or many */
	uint64_t deadline_us;
	pool_store_done done; /* NULL: nobody waits, or not any more */
	pool_store_found found;
	pool_store_struck struck;
	void *ctx;
	uint64_t first_turn; /* sweep */
	char words[WORDS_MAX][WORD_MAX];
	size_t word_count;
	size_t count, at, sent; /* of `entries`: all, acknowledged, under way */
	char entries[][ENTRY_MAX];
};

struct pool_store {
	struct link *link;
	struct link_command command;
	char key[sizeof KEY_PREFIX + 8 + WORD_MAX];
	char instance[WORD_MAX];
	char incarnation[POOL_REPLY_TEXT_MAX + 1];
	char session[POOL_REPLY_TEXT_MAX + 1];
	uint64_t turn;
	uint64_t sessions;   /* that the last beat knew of, one more when some had ended and left something; 0 = there was none */
	uint64_t known;      /* turn of the last beat whose answer was read */
	struct item *queue;  /* oldest first */
	struct item *flight; /* one operation, or notes: asked, or to be asked again, with `turn` */
	bool sent, lost, closed;
	uint64_t hold_us; /* nothing is sent before */
	struct pool_store_events events;
	void (*on_command)(void *ctx, uint64_t duration_us, const char *error_kind);
	void *command_ctx;
	uv_timer_t timer;
	unsigned handles;
	void (*on_freed)(void *ctx);
	void *freed_ctx;
};

/* Sends what is next, if anything can be sent now. */
void pool_store_pump(struct pool_store *store);

/* Time passes from now on, until nothing waits for it. */
void pool_store_start_timer(struct pool_store *store);

/* Of `command`. */
void pool_store_on_event(struct link_command *command, enum link_event event, const struct redisReply *reply);

void pool_store_drop_list(struct item **list);
void pool_store_drop_notes(struct pool_store *store);
