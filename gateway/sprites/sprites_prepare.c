#include "gateway/sprites/sprites_work.h"

#include "gateway/base/clock.h"
#include "gateway/base/id.h"
#include "gateway/base/log.h"
#include "gateway/sprites/handshake.h"
#include "gateway/sprites/record.h"
#include "gateway/sprites/shim_image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define FALSE_404S 2 /* on /control: the next one is believed */

static void do_step(struct work *work);
static void step_done(struct work *work, const struct verdict *verdict);

static void step_failed(struct work *work, bool not_ready, const char *detail)
{
	struct verdict verdict;
	answers_fail(&verdict, PROVIDER_UNAVAILABLE, detail);
	verdict.not_ready = not_ready;
	step_done(work, &verdict);
}

static void on_called(void *ctx, const struct verdict *verdict)
{
	struct work *work = ctx;
	work->calling = false;
	if (work->told)
		work_free(work);
	else
		step_done(work, verdict);
}

static void on_confirmed(void *ctx, const struct verdict *verdict)
{
	struct work *work = ctx;
	struct verdict answer = *verdict;
	if (answer.code == PROVIDER_OK && !work->listed)
		answers_fail(&answer, PROVIDER_GONE, "prepare: there is no such Sprite, says the list too");
	else if (answer.code == PROVIDER_GONE)
		answer.code = PROVIDER_INVALID;
	on_called(work, &answer);
}

static void refused(struct work *work, const struct socket_refusal *refusal)
{
	struct verdict verdict;
	struct answer answer = {
		.status = refusal->status, .retry_after_ms = refusal->retry_after_ms, .rate = RATE_FIELDS_NONE, .failure = refusal->reason};
	work->control_404s += refusal->status == 404;
	if (refusal->status >= 400) {
		answers_judge(&verdict, SPRITES_GET, work->name, &answer);
		snprintf(verdict.detail, sizeof verdict.detail, "prepare: %.200s", refusal->reason);
		step_done(work, &verdict);
	} else {
		step_failed(work, true, refusal->reason);
	}
}

static void on_dialled(void *ctx, struct sandbox *sandbox, const struct socket_refusal *refusal)
{
	struct work *work = ctx;
	work->sandbox = sandbox;
	if (refusal) {
		sandbox_close(TAKE(work->sandbox));
		refused(work, refusal);
		return;
	}
	struct verdict verdict;
	const char *version = sandbox_version(sandbox);
	answers_fail(&verdict, PROVIDER_OK, "prepare: the channel stands");
	if (handshake_is_outdated(version)) {
		verdict.code = PROVIDER_INVALID;
		snprintf(verdict.detail, sizeof verdict.detail, "prepare: the Sprite runs %s, which loses output of short commands",
			 version);
	}
	step_done(work, &verdict);
}

static void on_first_output(void *ctx, enum sandbox_stream stream, struct slice bytes)
{
	struct work *work = ctx;
	size_t room = sizeof work->said - 1 - work->said_len;
	if (stream != SANDBOX_STDOUT)
		return;
	if (bytes.len > room)
		bytes.len = room;
	memcpy(work->said + work->said_len, bytes.data, bytes.len);
	work->said_len += bytes.len;
}

/* The shim speaks first, if it can be run. */
static struct slice after_shim(const struct work *work, bool *shim)
{
	struct slice said = slice_of(work->said, work->said_len), word = SLICE(RECORD_SHIM_SAYS);
	*shim = said.len >= word.len && slice_equal(slice_of(said.data, word.len), word);
	return *shim ? slice_from(said, word.len) : said;
}

/* A clean Sprite has a mark, and after a restore another one than before. */
static bool takes_mark(struct work *work)
{
	bool shim;
	struct slice mark = after_shim(work, &shim);
	struct baseline *baseline = baselines_find(&work->provider->baselines, work->name);
	uint64_t number;
	if (!baseline || slice_to_u64(mark, UINT64_MAX, &number) != 0 || slice_equal(mark, slice_str(baseline->mark)))
		return false;
	snprintf(baseline->mark, sizeof baseline->mark, "%.*s", SLICE_FMT(mark));
	return true;
}

#define FENCE_EXIT   75
#define FENCE_FOLDER "/home/sprite/.spritegate-taken"

/* bash: leaves the number of the taker, "$3", under that of the parking, "$2": whoever comes later fails, and so does who comes with an
 * older parking. */
#define FENCE                                                                           \
	"[ \"$2\" = 0 ] || {\n"                                                         \
	"mkdir -m 700 -p " FENCE_FOLDER " && { ln -sT \"$3\" " FENCE_FOLDER "/$2 ||"    \
	" [ \"$(readlink " FENCE_FOLDER "/$2)\" = \"$3\" ]; } 2>/dev/null || exit 75\n" \
	"for REPLY in " FENCE_FOLDER "/*; do [ \"${REPLY##*/}\" -le \"$2\" ] || exit 75; done\n}\n"

static const char *first_fault(struct work *work, unsigned exit_code)
{
	bool marks = work->preparation.step == PREPARATION_MARK && !work->again;
	if (exit_code)
		return marks ? "restore: what an earlier command left is still there" : "prepare: the first command failed";
	return marks && !takes_mark(work) ? "restore: the Sprite's processes were not begun anew" : NULL;
}

static int run_first(struct work *work, const char *script, const char *name);

/* Its bytes, or its answer, may have been lost. */
static bool bring_shim_again(struct work *work)
{
	if (work->again)
		return false;
	work->again = true;
	return run_first(work, RECORD_PREPARE, "spritegate") == 0;
}

static void on_first_exit(void *ctx, unsigned exit_code)
{
	struct work *work = ctx;
	struct verdict verdict;
	uv_timer_stop(&work->pause);
	const char *fault = first_fault(work, exit_code);
	bool shim;
	(void)after_shim(work, &shim);
	if (work->fence.parking && exit_code == FENCE_EXIT) {
		answers_fail(&verdict, PROVIDER_TAKEN, "prepare: another gateway has taken it");
		step_done(work, &verdict);
		return;
	}
	if (!fault && !shim && bring_shim_again(work))
		return;
	sandbox_set_shim(work->sandbox, shim);
	if (!fault && !shim)
		log_warning("sprite %s: the shim cannot be run there; what its command prints is not verified", work->name);
	answers_fail(&verdict, fault ? PROVIDER_INVALID : PROVIDER_OK, fault ? fault : "prepare: done");
	step_done(work, &verdict);
}

static void on_first_broken(void *ctx, enum sandbox_doubt doubt UNUSED, const char *reason)
{
	struct work *work = ctx;
	char detail[ANSWERS_DETAIL];
	uv_timer_stop(&work->pause);
	sandbox_close(TAKE(work->sandbox));
	snprintf(detail, sizeof detail, "prepare: the first command: %s", reason);
	/* It does nothing, so it may run twice. */
	step_failed(work, true, detail);
}

static void on_first_timeout(uv_timer_t *timer)
{
	struct work *work = timer->data;
	sandbox_close(TAKE(work->sandbox));
	step_failed(work, false, "prepare: the first command did not end in time");
}

static const struct sandbox_events first_events = {.on_output = on_first_output, .on_exit = on_first_exit, .on_broken = on_first_broken};

/* Brings the shim. */
static int run_first(struct work *work, const char *script, const char *name)
{
	char parking[24], taker[24];
	snprintf(parking, sizeof parking, "%" PRIu64, work->fence.parking);
	snprintf(taker, sizeof taker, "%016" PRIx64, work->fence.taker);
	const char *const argv[] = {"bash", "-lc", script, name, shim_image.sha256, parking, taker};
	struct sandbox_command command = {
		.argv = argv, .argc = ARRAY_LEN(argv), .input = slice_of((const char *)shim_image.bytes, shim_image.len)};
	work->said_len = 0;
	int r = sandbox_run(work->sandbox, &command, &first_events, work);
	if (r == 0)
		uv_timer_start(&work->pause, on_first_timeout, work->provider->options.first_run_timeout_ms, 0);
	return r;
}

#define MARK_FILE "/home/sprite/.spritegate-used"

/* Warms up what a command needs. Before a checkpoint, what an earlier preparation left goes. */
static int run_warm_up(struct work *work)
{
	bool restorable = work->preparation.kind == PREPARATION_RESTORABLE;
	work->again = false;
	return run_first(work, restorable ? FENCE "rm -f \"$0\" && {\n" RECORD_PREPARE "}" : FENCE RECORD_PREPARE, MARK_FILE);
}

/* Leaves a file that must not be there yet; says when the first process began (field 22 of its stat). What was in /tmp may
 * be gone after a restore. */
static int run_mark(struct work *work)
{
	work->again = false;
	return run_first(work,
			 FENCE "set -eC; : >\"$0\"\n" RECORD_PREPARE "read -r stat </proc/1/stat; set -- ${stat##*) }; printf %s \"${20}\"",
			 MARK_FILE);
}

static void on_checkpoint(void *ctx, const struct verdict *verdict)
{
	struct work *work = ctx;
	struct verdict kept = *verdict;
	struct baseline *baseline = verdict->code == PROVIDER_OK ? baselines_make(&work->provider->baselines, work->name) : NULL;
	if (baseline) {
		snprintf(baseline->checkpoint, sizeof baseline->checkpoint, "%s", verdict->checkpoint);
		baseline->mark[0] = '\0';
	} else if (verdict->code == PROVIDER_OK) {
		answers_fail(&kept, PROVIDER_UNAVAILABLE, "checkpoint: out of memory");
	}
	on_called(work, &kept);
}

/* Before any command of ours, so it is another's if it is not this taking's. */
static void on_taken_told(void *ctx, const struct verdict *verdict)
{
	struct work *work = ctx;
	struct verdict answer = *verdict;
	const struct provider_fence *fence = &work->fence;
	bool ours = verdict->taken.parking == fence->parking && verdict->taken.taker == fence->taker;
	if (verdict->code == PROVIDER_OK && !verdict->taken.told)
		answers_fail(&answer, PROVIDER_INVALID, "prepare: the API does not say which labels it has");
	else if (verdict->code == PROVIDER_OK && verdict->taken.parking >= fence->parking && !ours)
		answers_fail(&answer, PROVIDER_TAKEN, "prepare: another gateway has taken it, by its label");
	on_called(work, &answer);
}

static void on_labelled(void *ctx, const struct verdict *verdict)
{
	struct work *work = ctx;
	struct verdict answer = *verdict;
	if (verdict->code == PROVIDER_OK && (verdict->taken.parking != work->fence.parking || verdict->taken.taker != work->fence.taker))
		answers_fail(&answer, PROVIDER_INVALID, "prepare: it does not have the label that it was given");
	on_called(work, &answer);
}

static int call_restore(struct work *work)
{
	const struct baseline *baseline = baselines_find(&work->provider->baselines, work->name);
	return baseline ? client_restore(work->provider->client, work->name, baseline->checkpoint, on_called, work) : -ENOENT;
}

static int call_step(struct work *work)
{
	struct client *client = work->provider->client;
	int r = -EINVAL;
	switch (work->preparation.step) {
	case PREPARATION_CLOSE_NETWORK:
		r = client_close_network(client, work->name, on_called, work);
		break;
	case PREPARATION_CHECK_NETWORK:
		r = client_check_network(client, work->name, on_called, work);
		break;
	case PREPARATION_CONFIRM:
		r = work_ask_list(work, on_confirmed);
		break;
	case PREPARATION_DIAL:
		sandbox_close(TAKE(work->sandbox)); /* of a preparation that begins anew */
		return sandbox_dial(&work->provider->sandbox_options, work->name, work->control_404s >= FALSE_404S, on_dialled, work,
				    &work->sandbox);
	case PREPARATION_RUN:
		return run_warm_up(work);
	case PREPARATION_MARK:
		return run_mark(work);
	case PREPARATION_CHECKPOINT:
		r = client_checkpoint(client, work->name, on_checkpoint, work);
		break;
	case PREPARATION_RESTORE:
		r = call_restore(work);
		break;
	case PREPARATION_CHECK_TAKEN:
		r = client_get(client, work->name, on_taken_told, work);
		break;
	case PREPARATION_LABEL_TAKEN:
		r = client_label_taken(client, work->name, work->fence.parking, work->fence.taker, on_labelled, work);
		break;
	case PREPARATION_END:
		break;
	}
	work->calling = r == 0;
	return r;
}

static void on_pause(uv_timer_t *timer)
{
	do_step(timer->data);
}

static void do_step(struct work *work)
{
	int r = call_step(work);
	if (r != 0)
		step_failed(work, r > 0, r > 0 ? "prepare: the channel was lost" : "prepare: a step could not be started");
}

static void step_done(struct work *work, const struct verdict *verdict)
{
	uint32_t random = 0;
	(void)!id_random(&random, sizeof random);
	work->verdict = *verdict;
	struct preparation_action action = preparation_step(&work->preparation, verdict, clock_mono_us(), random);
	switch (action.kind) {
	case PREPARATION_DO:
		do_step(work);
		break;
	case PREPARATION_WAIT:
		if (work->preparation.step == PREPARATION_DIAL)
			sandbox_close(TAKE(work->sandbox));
		uv_timer_start(&work->pause, on_pause, action.wait_us / 1000 + 1, 0);
		break;
	case PREPARATION_FINISH:
		work_tell(work, action.code);
		break;
	}
}

int work_prepare(struct sprites_provider *provider, enum preparation_kind kind, const char *name, struct provider_fence fence,
		 provider_done done, void *ctx)
{
	struct work *work = work_valid_name(name) ? work_new(provider, name, done, ctx) : NULL;
	if (!work)
		return work_valid_name(name) ? -ENOMEM : -EINVAL;
	uint64_t budget_ms = provider->options.prepare_timeout_ms;
	work->fence = fence;
	preparation_init(&work->preparation, kind, budget_ms * 1000, clock_mono_us());
	work->preparation.fenced = fence.parking != 0;
	if (!work_take_turn(work, on_pause, budget_ms))
		return 0;
	int r = call_step(work);
	return r < 0 ? work_started(work, r) : 0;
}
