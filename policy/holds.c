#include "policy/holds.h"

#include "policy/keys.h"
#include "policy/script.h"

#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#define ASK_MS       300
#define RENEW_MS     20000
#define UNRENEWED_MS 60000 /* as in admit.lua */

#define KEY_SIZE (sizeof KEY_KILL + ADMISSION_LEASE_LEN)
#define KEYS     4 /* of each lease */

_Static_assert(ADMISSION_LEASE_LEN > ADMISSION_KID_LEN && sizeof KEY_KILL > sizeof KEY_KILL_BY, "any key fits");

static struct admission_hold *find(const struct holds *holds, const char *lease)
{
	struct admission_hold *hold;
	DL_FOREACH (holds->list, hold)
		if (strcmp(hold->lease.id, lease) == 0)
			return hold;
	return NULL;
}

/* --- renewals ----------------------------------------------------------------- */

/* Its hold may be let go meanwhile. */
struct renewal {
	struct link_command command;
	struct holds *holds;
	struct admission_lease lease;
};

static void on_renewal(struct link_command *command, enum link_event event, const struct redisReply *reply);

static int send_renewal(struct renewal *renewal, bool by_text)
{
	char key[sizeof KEY_RECORD + ADMISSION_KID_LEN];
	renewal->command = (struct link_command){.event = on_renewal};
	snprintf(key, sizeof key, KEY_RECORD "%s", renewal->lease.kid);
	struct slice args[] = {slice_str(key), slice_str(renewal->lease.kid), slice_str(renewal->lease.id),
			       slice_str(renewal->lease.actor)};
	return script_send(renewal->holds->link, &renewal->command, &script_renew, by_text, args, ARRAY_LEN(args));
}

static void end(struct admission_hold *hold, bool *how)
{
	if (*how)
		return;
	*how = true;
	hold->on_end(hold);
}

/* What failed is tried again in the next turn of the timer. */
static void on_renewal(struct link_command *command, enum link_event event, const struct redisReply *reply)
{
	struct renewal *renewal = CONTAINER_OF(command, struct renewal, command);
	struct holds *holds = renewal->holds;
	if (event == LINK_TIMEOUT)
		return; /* its answer or the end of the connection follows */
	if (event == LINK_REPLY && script_is_missing(reply) && !holds->stopped && send_renewal(renewal, true) == 0)
		return;
	struct admission_hold *hold = holds->stopped ? NULL : find(holds, renewal->lease.id);
	free(renewal);
	if (!hold)
		return;
	hold->renewing = false;
	if (event != LINK_REPLY || reply->type != REDIS_REPLY_INTEGER)
		return;
	hold->renewed_ms = uv_now(holds->loop);
	if (reply->integer || hold->kill.killed)
		return;
	hold->kill.lost = true;
	end(hold, &hold->kill.killed);
}

static void renew(struct holds *holds, struct admission_hold *hold)
{
	struct renewal *renewal = calloc(1, sizeof *renewal);
	if (!renewal)
		return;
	*renewal = (struct renewal){.holds = holds, .lease = hold->lease};
	hold->renewing = send_renewal(renewal, false) == 0;
	if (!hold->renewing)
		free(renewal);
}

static void renew_those_due(struct holds *holds)
{
	struct admission_hold *hold;
	uint64_t now = uv_now(holds->loop);
	DL_FOREACH (holds->list, hold)
		if (hold->lease.granted_ms > UNRENEWED_MS && !hold->renewing && now - hold->renewed_ms >= RENEW_MS)
			renew(holds, hold);
}

/* --- kills -------------------------------------------------------------------- */

static bool is_named(const struct admission_hold *hold, struct slice name)
{
	return !hold->kill.killed && (slice_equal(name, slice_str(hold->lease.id)) || slice_equal(name, slice_str(hold->lease.kid)));
}

static void end_those(struct holds *holds, struct slice name)
{
	struct admission_hold *hold, *next;
	bool stops = slice_has_prefix(name, SLICE(KILL_STOP));
	if (stops)
		name = slice_from(name, sizeof KILL_STOP - 1);
	DL_FOREACH_SAFE (holds->list, hold, next)
		if (is_named(hold, name))
			end(hold, stops ? &hold->kill.stopped : &hold->kill.killed);
}

static void note_who(struct holds *holds, struct slice name, struct slice by)
{
	struct admission_hold *hold;
	DL_FOREACH (holds->list, hold)
		if (!hold->kill.by[0] && is_named(hold, name))
			snprintf(hold->kill.by, sizeof hold->kill.by, "%.*s", SLICE_FMT(by));
}

static struct slice text_at(const struct redisReply *reply, size_t i)
{
	const redisReply *value = reply->element[i];
	return value->type == REDIS_REPLY_STRING ? slice_of(value->str, value->len) : (struct slice){0};
}

/* The value of a mark is the name in its key, that of a note begins with it: the answer says by itself what is there. */
static void take_marks(struct holds *holds, const struct redisReply *reply)
{
	for (size_t i = 0; i < reply->elements; i++) {
		struct slice by = text_at(reply, i), name;
		if (by.len && slice_next(&by, ' ', &name) && by.len)
			note_who(holds, name, by);
	}
	for (size_t i = 0; i < reply->elements; i++)
		end_those(holds, text_at(reply, i));
}

static void on_event(struct link_command *command, enum link_event event, const struct redisReply *reply)
{
	struct holds *holds = CONTAINER_OF(command, struct holds, question);
	if (event == LINK_TIMEOUT)
		return; /* its answer or the end of the connection follows */
	holds->asking = false;
	if (event == LINK_REPLY && !holds->stopped && reply->type == REDIS_REPLY_ARRAY)
		take_marks(holds, reply);
}

static size_t put_key(const char *prefix, const char *name, char key[KEY_SIZE])
{
	int n = snprintf(key, KEY_SIZE, "%s%s", prefix, name);
	return n > 0 ? (size_t)n : 0;
}

static void ask(struct holds *holds)
{
	struct admission_hold *hold;
	size_t count = 0, argc = 1;
	DL_COUNT(holds->list, hold, count);
	CLEANUP(free_ptr) char(*keys)[KEY_SIZE] = calloc(KEYS * count, sizeof *keys);
	CLEANUP(free_ptr) const char **argv = calloc(KEYS * count + 1, sizeof *argv);
	CLEANUP(free_ptr) size_t *lengths = calloc(KEYS * count + 1, sizeof *lengths);
	if (!keys || !argv || !lengths)
		return;
	argv[0] = "MGET";
	lengths[0] = strlen(argv[0]);
	/* Who named a lease itself comes before all who named a kid: the first is told. */
	static const struct {
		const char *prefix;
		bool of_kid;
	} asked[KEYS] = {{KEY_KILL, true}, {KEY_KILL, false}, {KEY_KILL_BY, false}, {KEY_KILL_BY, true}};
	for (size_t i = 0; i < KEYS; i++) {
		DL_FOREACH (holds->list, hold) {
			const char *name = asked[i].of_kid ? hold->lease.kid : hold->lease.id;
			lengths[argc] = put_key(asked[i].prefix, name, keys[argc - 1]);
			argv[argc] = keys[argc - 1];
			argc++;
		}
	}
	holds->question = (struct link_command){.event = on_event};
	holds->asking = link_send(holds->link, &holds->question, (int)argc, argv, lengths) == 0;
}

static void on_timer(uv_timer_t *timer)
{
	struct holds *holds = timer->data;
	if (!holds->list) {
		(void)uv_timer_stop(timer);
		return;
	}
	if (!holds->asking)
		ask(holds);
	renew_those_due(holds);
}

void holds_init(struct holds *holds, uv_loop_t *loop, struct link *link)
{
	*holds = (struct holds){.link = link, .loop = loop};
	(void)uv_timer_init(loop, &holds->timer);
	holds->timer.data = holds;
}

void holds_add(struct holds *holds, struct admission_hold *hold)
{
	hold->renewed_ms = uv_now(holds->loop);
	DL_APPEND(holds->list, hold);
	if (!uv_is_active((uv_handle_t *)&holds->timer))
		(void)uv_timer_start(&holds->timer, on_timer, ASK_MS, ASK_MS);
}

void holds_remove(struct holds *holds, struct admission_hold *hold)
{
	DL_DELETE(holds->list, hold);
}

void holds_stop(struct holds *holds)
{
	holds->stopped = true;
	(void)uv_timer_stop(&holds->timer);
}
