#include "policy/session_store.h"

#include "gateway/base/log.h"
#include "policy/keys.h"
#include "policy/script.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#define WORDS_MAX 8
#define WORD_MAX  80

struct call {
	struct link_command command;
	struct session_store *store;
	struct call *prev, *next;
	char words[WORDS_MAX][WORD_MAX];
	size_t count;
	struct log_subject subject; /* of a command's question */
	bool hurries;            /* it is not answered later than the link's time-out */
	session_store_done done; /* at most one of the two */
	session_store_listed listed;
	void *ctx;
};

struct session_store {
	struct link *link;
	struct call *calls;
	char scope[WORD_MAX], idle[24], age[24];
	void (*on_command)(void *ctx, uint64_t duration_us, const char *error_kind);
	void *command_ctx;
	void (*on_freed)(void *ctx);
	void *freed_ctx;
};

/* --- answers ---------------------------------------------------------------- */

static bool is_word(const redisReply *reply, const char *word)
{
	return reply->type == REDIS_REPLY_STRING && slice_equal(slice_of(reply->str, reply->len), slice_str(word));
}

static enum session_store_code read_code(const redisReply *reply)
{
	if (!reply || reply->type != REDIS_REPLY_ARRAY || !reply->elements)
		return SESSION_STORE_LOST;
	const redisReply *word = reply->element[0];
	return is_word(word, "ok") ? SESSION_STORE_OK : is_word(word, "ended") ? SESSION_STORE_ENDED : SESSION_STORE_LOST;
}

/* 'ok', how many are kept, their names, names that are due. */
static bool read_names(const redisReply *reply, struct slice *names, size_t count, size_t *kept)
{
	const redisReply *number = reply->element[1];
	if (number->type != REDIS_REPLY_INTEGER || number->integer < 0 || (size_t)number->integer > count)
		return false;
	*kept = (size_t)number->integer;
	for (size_t i = 0; i < count; i++) {
		const redisReply *name = reply->element[2 + i];
		if (name->type != REDIS_REPLY_STRING || !name->len || name->len > 63 || memchr(name->str, '\0', name->len))
			return false;
		names[i] = slice_of(name->str, name->len);
	}
	return true;
}

static void tell_names(struct call *call, const redisReply *reply)
{
	bool whole = read_code(reply) == SESSION_STORE_OK && reply->elements >= 2;
	size_t count = whole ? reply->elements - 2 : 0, kept = 0;
	CLEANUP(free_ptr) struct slice *names = calloc(count + 1, sizeof *names);
	struct session_store_due due = {.code = SESSION_STORE_LOST};
	if (whole && names && read_names(reply, names, count, &kept))
		due = (struct session_store_due){.kept = names, .kept_count = kept, .due = names + kept, .due_count = count - kept};
	call->listed(call->ctx, &due);
}

static void finish(struct call *call, const redisReply *reply)
{
	DL_DELETE(call->store->calls, call);
	if (call->done)
		call->done(call->ctx, read_code(reply));
	if (call->listed)
		tell_names(call, reply);
	free(call);
}

/* --- calls ------------------------------------------------------------------ */

static int send_call(struct call *call, bool by_text)
{
	struct slice args[1 + WORDS_MAX] = {SLICE(KEY_SESSION_OF)};
	for (size_t i = 0; i < call->count; i++)
		args[1 + i] = slice_str(call->words[i]);
	return script_send(call->store->link, &call->command, &script_session, by_text, args, 1 + call->count);
}

/* A late answer is as good: whoever asked has its own deadline. */
static void on_event(struct link_command *command, enum link_event event, const struct redisReply *reply)
{
	struct call *call = CONTAINER_OF(command, struct call, command);
	if (event == LINK_TIMEOUT) {
		session_store_done done = call->hurries ? TAKE(call->done) : NULL;
		if (done)
			done(call->ctx, SESSION_STORE_LOST);
		return;
	}
	if (event == LINK_REPLY && script_is_missing(reply) && send_call(call, true) == 0)
		return;
	if (event == LINK_REPLY && reply->type == REDIS_REPLY_ERROR)
		log_warning_of(&call->subject, "sessions: %s: Redis answers %.120s", call->words[0], reply->str);
	finish(call, event == LINK_REPLY ? reply : NULL);
}

static void add(struct call *call, const char *word)
{
	snprintf(call->words[call->count++], WORD_MAX, "%s", word);
}

static struct call *new_call(struct session_store *store, const char *op, const struct session_ref *ref)
{
	struct call *call = calloc(1, sizeof *call);
	if (!call)
		return NULL;
	call->store = store;
	call->command.event = on_event;
	add(call, op);
	if (ref) {
		add(call, ref->kid);
		add(call, ref->name);
		add(call, ref->lease);
		call->subject = ref->subject;
	}
	return call;
}

static int ask(struct call *call)
{
	int r = send_call(call, false);
	if (r != 0) {
		free(call);
		return r < 0 ? r : SESSION_STORE_E_DOWN;
	}
	DL_APPEND(call->store->calls, call);
	return 0;
}

int session_store_bind(struct session_store *store, const struct session_ref *ref, const char *sprite, session_store_done done, void *ctx)
{
	struct call *call = new_call(store, "bind", ref);
	if (!call)
		return -ENOMEM;
	call->done = done;
	call->ctx = ctx;
	add(call, sprite);
	add(call, store->scope);
	add(call, store->idle);
	add(call, store->age);
	return ask(call);
}

int session_store_look(struct session_store *store, uint64_t lock_ms, session_store_listed listed, void *ctx)
{
	struct call *call = new_call(store, "due", NULL);
	char lock[24];
	if (!call)
		return -ENOMEM;
	call->listed = listed;
	call->ctx = ctx;
	snprintf(lock, sizeof lock, "%" PRIu64, lock_ms);
	add(call, store->scope);
	add(call, lock);
	return ask(call);
}

static void say(struct call *call)
{
	if (!call || ask(call) != 0)
		log_warning("sessions: Redis could not be told: what it does not know ends by itself");
}

int session_store_release(struct session_store *store, const struct session_ref *ref, bool fresh, session_store_done done, void *ctx)
{
	struct call *call = new_call(store, "release", ref);
	if (!call)
		return -ENOMEM;
	call->hurries = true;
	call->done = done;
	call->ctx = ctx;
	add(call, fresh ? "1" : "0");
	add(call, store->idle);
	add(call, store->age);
	return ask(call);
}

static void say_of(struct session_store *store, const char *op, const char *sprite)
{
	struct call *call = new_call(store, op, NULL);
	if (call)
		add(call, sprite);
	say(call);
}

void session_store_lost(struct session_store *store, const char *sprite)
{
	say_of(store, "lost", sprite);
}

void session_store_gone(struct session_store *store, const char *sprite)
{
	say_of(store, "gone", sprite);
}

/* --- life ------------------------------------------------------------------- */

static void on_command(void *ctx, uint64_t duration_us, const char *error_kind)
{
	const struct session_store *store = ctx;
	if (store->on_command)
		store->on_command(store->command_ctx, duration_us, error_kind);
}

struct session_store *session_store_new(const struct session_store_options *options)
{
	struct session_store *store = calloc(1, sizeof *store);
	if (!store)
		return NULL;
	snprintf(store->scope, sizeof store->scope, "%s", options->scope);
	snprintf(store->idle, sizeof store->idle, "%" PRIu64, options->idle_ms);
	snprintf(store->age, sizeof store->age, "%" PRIu64, options->age_ms);
	store->on_command = options->on_command;
	store->command_ctx = options->command_ctx;
	struct link_options link = {.loop = options->loop,
				    .url = slice_str(options->redis_url),
				    .timeout_ms = options->timeout_ms,
				    .on_command = on_command,
				    .ctx = store};
	store->link = link_new(&link);
	if (!store->link) {
		free(store);
		return NULL;
	}
	return store;
}

static void on_link_freed(void *ctx)
{
	struct session_store *store = ctx;
	store->on_freed(store->freed_ctx);
	free(store);
}

void session_store_free(struct session_store *store, void (*on_freed)(void *ctx), void *ctx)
{
	struct call *call;
	store->on_freed = on_freed;
	store->freed_ctx = ctx;
	DL_FOREACH (store->calls, call) {
		if (!call->hurries)
			call->done = NULL;
		call->listed = NULL;
	}
	link_free(store->link, on_link_freed, store);
}
