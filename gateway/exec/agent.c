#include "gateway/exec/agent.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/exec/intent.h"
#include "gateway/exec/leases.h"
#include "gateway/exec/pool_metrics.h"
#include "gateway/exec/run.h"
#include "gateway/exec/spans.h"
#include "gateway/exec/tally.h"
#include "gateway/pool/member_name.h"

#include <stdlib.h>
#include <utlist.h>

#define DRAIN_POLL_MS  20
#define DRAIN_SLACK_MS 5000

struct entry {
	char exec_id[ID_UUID_LEN + 1];
	struct run *run;
	struct admission_hold hold; /* until it is answered: its lease is settled then */
	bool on_request;            /* its owner has canceled it */
	bool by_operator;           /* an operator has, through this gateway: by TERM first, so it is not hold.kill.killed */
	uint64_t start_us;
	struct entry *prev, *next;
};

struct exec_agent {
	uv_loop_t *loop;
	struct mailbox mailbox;
	struct pool *pool;
	struct sessions *sessions;
	size_t held_replies; /* of sessions, until Redis has them free */
	struct leases *leases; /* NULL = the pool is not shared */
	struct admission *settlement;
	bool is_kept; /* what is not settled in time is not lost */
	struct metrics_shard *metrics;
	struct audit *audit;
	struct spans spans;
	struct run_owner owner;
	size_t wanted, prepared; /* hot Sprites; Sprites that have become ready so far */
	struct entry *runs;       /* few: bounded by the pool, its waiters and the mailbox */
	size_t run_count;
	struct recent recent;
	uv_timer_t drain_timer;
	bool draining, pool_stopped;
	uint64_t drain_deadline_ms; /* in loop time */
	void (*on_drained)(void *ctx);
	void *drained_ctx;
	void (*on_superseded)(void *ctx);
	void *superseded_ctx;
	int closing;                /* parts that have not let go yet */
	void (*on_freed)(void *ctx);
	void *freed_ctx;
};

static void remember(struct exec_agent *agent, const struct exec_job *job, const struct exec_result *result)
{
	struct recent_run run = {.outcome = exec_outcome_name(job->outcome),
				 .tier = job->tier,
				 .exit_code = job->outcome == EXEC_EXITED ? result->exit_code : RECENT_NO_EXIT,
				 .ended_ms = clock_wall_ms(),
				 .wait_us = result->claim_us,
				 .run_us = result->run_us};
	memcpy(run.exec_id, job->message.exec_id, sizeof run.exec_id);
	memcpy(run.kid, job->lease.kid, sizeof run.kid);
	recent_end(&agent->recent, &job->lease, &run, result->run_us / 1000);
}

static void reply(struct exec_job *job)
{
	if (mailbox_reply(job->reply_to, &job->message.item) != 0)
		exec_job_free(job); /* the worker is gone, and its client with it */
}

struct held_reply {
	struct exec_agent *agent;
	struct exec_job *job;
};

static void on_session_free(void *ctx, enum session_store_code code UNUSED)
{
	CLEANUP(free_ptr) struct held_reply *held = ctx;
	held->agent->held_replies--;
	reply(held->job);
}

/* Whoever has the answer may send the session's next command at once: it must not find the session busy. */
static void reply_of_session(struct exec_agent *agent, struct exec_job *job)
{
	struct session_ref ref = {0};
	snprintf(ref.name, sizeof ref.name, "%s", job->request->session);
	memcpy(ref.kid, job->lease.kid, sizeof ref.kid);
	memcpy(ref.lease, job->lease.id, sizeof ref.lease);
	ref.subject = job->lease.subject;
	CLEANUP(free_ptr) struct held_reply *held = malloc(sizeof *held);
	if (held)
		*held = (struct held_reply){.agent = agent, .job = job};
	if (!held || sessions_release(agent->sessions, &ref, job->session.fresh, on_session_free, held) != 0) {
		reply(job);
		return;
	}
	agent->held_replies++;
	held = NULL;
}

static struct entry *find_entry(struct exec_agent *agent, const char *exec_id)
{
	struct entry *entry;
	DL_FOREACH (agent->runs, entry)
		if (strcmp(entry->exec_id, exec_id) == 0)
			return entry;
	return NULL;
}

static bool killed_by_operator(const struct entry *entry)
{
	return entry && (entry->hold.kill.killed || entry->by_operator);
}

static const char *killer_of(const struct exec_agent *agent, const struct entry *entry)
{
	if (killed_by_operator(entry))
		return "operator";
	if (entry && entry->on_request)
		return "request";
	return agent->draining ? "drain" : "client_gone";
}

static void on_answered(void *ctx, struct exec_job *job, const struct exec_result *result)
{
	struct exec_agent *agent = ctx;
	struct entry *entry = find_entry(agent, job->message.exec_id);
	if (entry)
		admission_let_go(agent->settlement, &entry->hold);
	tally_metrics(agent->metrics, job, result, killer_of(agent, entry));
	if (agent->audit)
		tally_audit(agent->audit, job, result, killed_by_operator(entry) ? entry->hold.kill.by : NULL);
	remember(agent, job, result);
	spans_of_run(&agent->spans, job, result);
	if (job->request->session)
		reply_of_session(agent, job);
	else
		reply(job);
}

/* Its owner wants it ended. He is heard by message and by the mark in Redis, whichever comes first. */
static void stop(struct entry *entry)
{
	if (entry->on_request)
		return;
	entry->on_request = true;
	run_stop(entry->run);
}

/* It is killed for an operator, or when its owner asks for the second time. */
static void on_end(struct admission_hold *hold)
{
	struct entry *entry = CONTAINER_OF(hold, struct entry, hold);
	if (!hold->kill.killed) {
		stop(entry);
		return;
	}
	log_info_of(&hold->lease.subject, "exec: killed, %s", hold->kill.lost ? "its lease has ended" : "there is a mark in Redis");
	run_cancel(entry->run);
}

static void on_run_freed(void *ctx, struct run *run)
{
	struct exec_agent *agent = ctx;
	struct entry *entry, *next;
	DL_FOREACH_SAFE (agent->runs, entry, next) {
		if (entry->run == run) {
			DL_DELETE(agent->runs, entry);
			agent->run_count--;
			free(entry);
		}
	}
}

/* Out of memory before there was a run that settles. */
static void refuse(struct exec_agent *agent, struct exec_job *job)
{
	if (admission_settle(agent->settlement, &job->lease, 0, 0, true, NULL) != 0)
		log_warning_of(&job->lease.subject, "exec: its lease could not be settled and will end by itself");
	job->outcome = EXEC_NOT_STARTED;
	job->tier = "none";
	job->error = -ENOMEM;
	reply(job);
}

static void start(struct exec_agent *agent, struct exec_job *job)
{
	struct entry *entry = calloc(1, sizeof *entry);
	const struct admission_kill kill = job->kill;
	if (entry) {
		*entry = (struct entry){.hold = {.lease = job->lease, .on_end = on_end}, .start_us = clock_mono_us()};
		recent_grant(&agent->recent, &job->lease, &job->budget, clock_wall_ms());
		entry->run = run_start(&agent->owner, job);
	}
	if (!entry || !entry->run) {
		free(entry);
		refuse(agent, job);
		return;
	}
	memcpy(entry->exec_id, job->message.exec_id, sizeof entry->exec_id);
	DL_APPEND(agent->runs, entry);
	agent->run_count++;
	admission_hold(agent->settlement, &entry->hold);
	if (kill.stopped || kill.killed) {
		/* It has no Sprite yet: none is given inside run_start(). */
		entry->hold.kill = kill;
		on_end(&entry->hold);
	}
}

/* NULL when it has ended. */
static struct run *find(struct exec_agent *agent, const char *exec_id)
{
	struct entry *entry = find_entry(agent, exec_id);
	return entry ? entry->run : NULL;
}

static void cancel(struct exec_agent *agent, struct exec_cancel *message)
{
	struct entry *entry = find_entry(agent, message->message.exec_id);
	if (entry && message->at_once) {
		entry->on_request |= message->on_request;
		run_cancel(entry->run);
	} else if (entry) {
		stop(entry);
	}
	free(message);
}

static void credit(struct exec_agent *agent, struct exec_credit *message)
{
	struct run *run = find(agent, message->message.exec_id);
	if (run)
		run_credit(run, message->bytes);
	free(message);
}

static void input(struct exec_agent *agent, struct exec_piece *piece)
{
	struct run *run = find(agent, piece->message.exec_id);
	if (run)
		run_input(run, piece);
	else
		exec_piece_free(piece);
}

static void written(struct exec_agent *agent, struct exec_written *message)
{
	struct run *run = find(agent, message->message.exec_id);
	if (run)
		run_written(run, message);
	free(message);
}

static void intend(struct exec_agent *agent, struct exec_intent *intent)
{
	pool_intent(agent->pool, intent->for_ms);
	free(intent);
}

static void on_message(void *ctx, struct mailbox_item *item)
{
	struct exec_message *message = CONTAINER_OF(item, struct exec_message, item);
	switch (message->kind) {
	case EXEC_START:
		start(ctx, CONTAINER_OF(message, struct exec_job, message));
		break;
	case EXEC_CANCEL:
		cancel(ctx, CONTAINER_OF(message, struct exec_cancel, message));
		break;
	case EXEC_CREDIT:
		credit(ctx, CONTAINER_OF(message, struct exec_credit, message));
		break;
	case EXEC_INPUT:
		input(ctx, CONTAINER_OF(message, struct exec_piece, message));
		break;
	case EXEC_WROTE:
		written(ctx, CONTAINER_OF(message, struct exec_written, message));
		break;
	case EXEC_PIECE: /* only endpoints get those */
	case EXEC_BATCH:
		break;
	case EXEC_INTENT:
		intend(ctx, CONTAINER_OF(message, struct exec_intent, message));
		break;
	}
}

static void on_claim(void *ctx, const char *what, uint64_t waited_us)
{
	struct exec_agent *agent = ctx;
	pool_metrics_claim(agent->metrics, what, waited_us);
}

static void on_create(void *ctx, enum provider_code code, uint64_t took_us)
{
	struct exec_agent *agent = ctx;
	pool_metrics_call(agent->metrics, METRIC_POOL_CREATES, METRIC_POOL_CREATE_SECONDS, code, took_us);
}

static void on_prepare(void *ctx, enum provider_code code, uint64_t took_us)
{
	struct exec_agent *agent = ctx;
	agent->prepared += code == PROVIDER_OK;
	pool_metrics_call(agent->metrics, METRIC_POOL_PREPARES, METRIC_POOL_PREPARE_SECONDS, code, took_us);
}

/* What others of a shared pool have parked has become ready here when it is woken. */
static void on_wake(void *ctx, enum provider_code code, uint64_t took_us)
{
	struct exec_agent *agent = ctx;
	agent->prepared += code == PROVIDER_OK && agent->leases;
	pool_metrics_call(agent->metrics, METRIC_POOL_WAKES, METRIC_POOL_WAKE_SECONDS, code, took_us);
}

static void on_restore(void *ctx, enum provider_code code, uint64_t took_us)
{
	struct exec_agent *agent = ctx;
	pool_metrics_call(agent->metrics, METRIC_POOL_RESTORES, METRIC_POOL_RESTORE_SECONDS, code, took_us);
}

static void on_destroy(void *ctx, enum provider_code code, uint64_t took_us UNUSED)
{
	struct exec_agent *agent = ctx;
	struct metrics_labels labels = {{metrics_value(METRIC_POOL_DESTROYS, 0, provider_code_name(code))}};
	metrics_add(agent->metrics, METRIC_POOL_DESTROYS, labels, 1);
}

static void on_lost(void *ctx)
{
	struct exec_agent *agent = ctx;
	metrics_add(agent->metrics, METRIC_POOL_LOST, METRICS_NONE, 1);
}

static void on_superseded(void *ctx)
{
	struct exec_agent *agent = ctx;
	agent->on_superseded(agent->superseded_ctx);
}

/* Of a pool that is not shared nothing is removed before. */
static void on_known(void *ctx)
{
	struct exec_agent *agent = ctx;
	if (!agent->leases && !agent->draining)
		pool_start(agent->pool);
}

static struct sessions *make_sessions(struct exec_agent *agent, const struct exec_agent_options *options)
{
	char instance[MEMBER_NAME_INSTANCE_MAX + 1], scope[80];
	if (member_name_instance(instance, slice_str(options->instance)) < 0)
		return NULL;
	/* No shared pool is called so. */
	snprintf(scope, sizeof scope, "%s%s", options->pool_name ? "" : "~", options->pool_name ? options->pool_name : instance);
	const struct sessions_options sessions = {.loop = options->loop,
						  .provider = options->provider,
						  .redis_url = options->settlement.redis_url,
						  .timeout_ms = options->settlement.timeout_ms,
						  .scope = scope,
						  .idle_ms = options->session_idle_ms,
						  .age_ms = options->session_age_ms,
						  .on_known = on_known,
						  .ctx = agent,
						  .on_command = options->settlement.observer.on_command,
						  .command_ctx = options->settlement.observer.ctx};
	return sessions_new(&sessions);
}

static struct pool *make_pool(struct exec_agent *agent, const struct exec_agent_options *options)
{
	const struct leases_options leases = {.loop = options->loop,
					      .redis_url = options->settlement.redis_url,
					      .timeout_ms = options->settlement.timeout_ms,
					      .pool = options->pool_name,
					      .instance = options->instance,
					      .on_command = options->settlement.observer.on_command,
					      .ctx = options->settlement.observer.ctx};
	agent->leases = options->pool_name ? leases_new(&leases) : NULL;
	if (options->pool_name && !agent->leases)
		return NULL;
	struct pool_options pool = {
		.loop = options->loop,
		.provider = options->provider,
		.instance = options->instance,
		.recipe = slice_str(options->provider.recipe),
		.sizing = options->sizing,
		.usd_per_day = options->usd_per_day,
		.recycle = options->recycle,
		.max_waiters = POOL_MAX_WAITERS_DEFAULT,
		.leases = agent->leases ? leases_table(agent->leases) : (struct lease_table){0},
		.is_kept = sessions_is_kept,
		.kept_ctx = agent->sessions,
		.observer = {.on_claim = on_claim,
			     .on_create = on_create,
			     .on_prepare = on_prepare,
			     .on_wake = on_wake,
			     .on_restore = on_restore,
			     .on_destroy = on_destroy,
			     .on_lost = on_lost,
			     .on_superseded = on_superseded,
			     .ctx = agent},
	};
	return pool_new(&pool);
}

static void on_settled(void *ctx, const struct admission_lease *lease)
{
	struct exec_agent *agent = ctx;
	spans_settled(&agent->spans, lease);
}

static void ignore_freed(void *ctx UNUSED)
{
}

struct exec_agent *exec_agent_new(const struct exec_agent_options *options)
{
	struct exec_agent *agent = calloc(1, sizeof *agent);
	if (!agent)
		return NULL;
	agent->loop = options->loop;
	agent->metrics = options->metrics;
	agent->audit = options->audit;
	agent->spans.tracer = options->tracer;
	agent->on_superseded = options->on_superseded;
	agent->superseded_ctx = options->ctx;
	agent->wanted = options->sizing.hot == SIZING_AUTO ? 0 : options->sizing.hot;
	if (mailbox_init(&agent->mailbox, options->loop, options->max_jobs, on_message, agent) < 0) {
		free(agent);
		return NULL;
	}
	struct admission_options settlement = options->settlement;
	settlement.loop = options->loop;
	settlement.on_settled = on_settled;
	settlement.settled_ctx = agent;
	agent->settlement = admission_new(&settlement);
	agent->is_kept = settlement.unsettled;
	agent->sessions = agent->settlement && admission_restore(agent->settlement) == 0 ? make_sessions(agent, options) : NULL;
	agent->pool = agent->sessions ? make_pool(agent, options) : NULL;
	if (!agent->pool) {
		/* Start-up fails and ends the process: the mailbox's handle is left to that. */
		if (agent->settlement)
			admission_free(agent->settlement, ignore_freed, NULL);
		return NULL;
	}
	agent->owner = (struct run_owner){.loop = options->loop,
					  .pool = agent->pool,
					  .sessions = agent->sessions,
					  .settlement = agent->settlement,
					  .session_idle_ms = options->session_idle_ms,
					  .wait_ms = options->pool_wait_ms,
					  .verify_bytes = options->verify_bytes,
					  .insert_rows = options->insert_rows,
					  .result_bytes = options->result_bytes,
					  .on_answered = on_answered,
					  .on_freed = on_run_freed,
					  .ctx = agent};
	uv_timer_init(options->loop, &agent->drain_timer);
	agent->drain_timer.data = agent;
	sessions_start(agent->sessions, agent->pool);
	if (agent->leases)
		pool_start(agent->pool);
	return agent;
}

struct mailbox *exec_agent_mailbox(struct exec_agent *agent)
{
	return &agent->mailbox;
}

void exec_agent_resize(struct exec_agent *agent, size_t hot, size_t warm)
{
	pool_resize(agent->pool, hot, warm);
}

static void collect_sessions(struct exec_agent *agent)
{
	struct sessions_counts counts;
	sessions_counts(agent->sessions, &counts);
	metrics_set(agent->metrics, METRIC_SESSION_SPRITES, METRICS_NONE, counts.kept);
	const uint64_t events[] = {counts.created, counts.resumed, counts.lost, counts.destroyed};
	for (unsigned i = 0; i < ARRAY_LEN(events); i++)
		metrics_set(agent->metrics, METRIC_SESSION_EVENTS, (struct metrics_labels){{i}}, events[i]);
}

void exec_agent_collect(struct exec_agent *agent)
{
	struct pool_counts counts;
	pool_counts(agent->pool, &counts);
	pool_metrics_tell(agent->metrics, &counts);
	if (agent->leases) {
		struct leases_counts shared;
		leases_counts(agent->leases, &shared);
		pool_metrics_tell_leases(agent->metrics, &shared);
	}
	collect_sessions(agent);
	metrics_set(agent->metrics, METRIC_EXEC_RUNNING, METRICS_NONE, agent->run_count);
	metrics_set(agent->metrics, METRIC_EXEC_UNSETTLED, METRICS_NONE, admission_unsettled(agent->settlement));
}

static void cancel_all(struct exec_agent *agent)
{
	struct entry *entry, *next;
	DL_FOREACH_SAFE (agent->runs, entry, next)
		run_cancel(entry->run);
}

static void on_drain_timer(uv_timer_t *timer)
{
	struct exec_agent *agent = timer->data;
	uint64_t now = uv_now(agent->loop);
	if (now >= agent->drain_deadline_ms)
		cancel_all(agent);
	bool ended = agent->pool_stopped && !agent->runs && !agent->held_replies;
	bool settled = !admission_owed(agent->settlement) || (agent->is_kept && now >= agent->drain_deadline_ms);
	bool done = ended && settled;
	if (!done && now < agent->drain_deadline_ms + DRAIN_SLACK_MS)
		return;
	if (!done)
		log_warning("drain: given up with %zu commands and %zu settlements left", agent->run_count,
			    admission_owed(agent->settlement));
	uv_timer_stop(timer);
	agent->on_drained(agent->drained_ctx);
}

static void on_pool_stopped(void *ctx, size_t left)
{
	struct exec_agent *agent = ctx;
	agent->pool_stopped = true;
	if (left)
		log_warning("drain: %zu Sprites may still exist; the next start of this instance removes them", left);
}

void exec_agent_drain(struct exec_agent *agent, uint64_t deadline_ms, void (*on_drained)(void *ctx), void *ctx)
{
	uint64_t deadline = uv_now(agent->loop) + deadline_ms;
	if (agent->draining && deadline >= agent->drain_deadline_ms)
		return;
	agent->drain_deadline_ms = deadline;
	sessions_stop(agent->sessions);
	pool_stop(agent->pool, deadline_ms + DRAIN_SLACK_MS / 2, on_pool_stopped, agent);
	if (agent->draining)
		return;
	agent->draining = true;
	agent->on_drained = on_drained;
	agent->drained_ctx = ctx;
	uv_timer_start(&agent->drain_timer, on_drain_timer, 0, DRAIN_POLL_MS);
}

static void on_part_freed(void *ctx)
{
	struct exec_agent *agent = ctx;
	if (--agent->closing > 0)
		return;
	agent->on_freed(agent->freed_ctx);
	free(agent);
}

static void on_timer_closed(uv_handle_t *handle)
{
	on_part_freed(handle->data);
}

void exec_agent_free(struct exec_agent *agent, void (*on_freed)(void *ctx), void *ctx)
{
	agent->on_freed = on_freed;
	agent->freed_ctx = ctx;
	agent->closing = agent->leases ? 6 : 5;
	sessions_free(agent->sessions, on_part_freed, agent);
	mailbox_close(&agent->mailbox, on_part_freed);
	uv_close((uv_handle_t *)&agent->drain_timer, on_timer_closed);
	pool_free(agent->pool, on_part_freed, agent);
	if (agent->leases)
		leases_free(agent->leases, on_part_freed, agent);
	admission_free(agent->settlement, on_part_freed, agent);
}

void exec_agent_counts(const struct exec_agent *agent, struct pool_counts *counts)
{
	pool_counts(agent->pool, counts);
}

bool exec_agent_filled(const struct exec_agent *agent)
{
	return agent->prepared >= agent->wanted;
}

size_t exec_agent_running(const struct exec_agent *agent, struct exec_running *out, size_t max)
{
	const struct entry *entry;
	uint64_t now = clock_mono_us();
	size_t count = 0;
	DL_FOREACH (agent->runs, entry) {
		const char *phase = run_phase(entry->run);
		if (phase && count < max)
			out[count++] = (struct exec_running){.exec_id = entry->exec_id,
							     .kid = entry->hold.lease.kid,
							     .phase = phase,
							     .for_us = now - entry->start_us,
							     .timeout_ms = entry->hold.lease.granted_ms};
	}
	return count;
}

const struct recent *exec_agent_recent(const struct exec_agent *agent)
{
	return &agent->recent;
}

bool exec_agent_kill(struct exec_agent *agent, struct slice exec_id, const char *by)
{
	struct entry *entry;
	DL_FOREACH (agent->runs, entry) {
		if (!slice_equal(slice_str(entry->exec_id), exec_id) || !run_phase(entry->run))
			continue;
		if (!killed_by_operator(entry))
			snprintf(entry->hold.kill.by, sizeof entry->hold.kill.by, "%s", by);
		entry->by_operator = true;
		log_info_of(&entry->hold.lease.subject, "exec: killed by an operator");
		run_stop(entry->run);
		return true;
	}
	return false;
}
