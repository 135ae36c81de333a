#include "gateway/sprites/sprites_provider.h"

#include "gateway/base/clock.h"
#include "gateway/base/id.h"
#include "gateway/base/log.h"
#include "gateway/sprites/baselines.h"
#include "gateway/sprites/client.h"
#include "gateway/sprites/preparation.h"
#include "gateway/sprites/record.h"
#include "gateway/sprites/sandbox_dial.h"
#include "gateway/sprites/shim_image.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_UNSENT ((size_t)1 << 20)
#define FALSE_404S 2 /* on /control: the next one is believed */

struct sprites_provider {
	struct sprites_provider_options options;
	uv_loop_t *loop;
	struct secret token;
	char *ws_url;
	struct client *client;
	struct sandbox_options sandbox_options;
	struct baselines baselines;
	struct work *works;
};

/* One operation of the pool under way. */
struct work {
	struct work *next, **link;
	struct sprites_provider *provider;
	char name[PROVIDER_NAME_MAX + 1];
	provider_done done;
	provider_found found;
	void *ctx;
	struct verdict verdict; /* the last one */
	/* destroy, and the confirmation of an absence */
	bool listed;
	/* prepare */
	struct preparation preparation;
	struct provider_fence fence;
	struct sandbox *sandbox;
	char said[BASELINES_MARK]; /* by the command of a step */
	size_t said_len;
	bool again;            /* the shim is brought a second time */
	char *policy;          /* of open_network */
	unsigned control_404s; /* of the API in front of the Sprite */
	bool told;             /* `done` has run: only a REST call is still out */
	bool calling;          /* … and will come back to us */
	uv_timer_t pause;      /* the next attempt, or the end of the first command */
	uv_timer_t timeout;    /* of all of it */
	unsigned handles;
};

/* --- life of an operation --- */

static struct work *work_new(struct sprites_provider *provider, const char *name, provider_done done, void *ctx)
{
	struct work *work = calloc(1, sizeof *work);
	if (!work)
		return NULL;
	work->provider = provider;
	work->done = done;
	work->ctx = ctx;
	snprintf(work->name, sizeof work->name, "%s", name);
	work->link = &provider->works;
	work->next = provider->works;
	if (work->next)
		work->next->link = &work->next;
	provider->works = work;
	return work;
}

static void dispose(struct work *work)
{
	free(work->policy);
	free(work);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct work *work = handle->data;
	if (!--work->handles)
		dispose(work);
}

static void work_free(struct work *work)
{
	*work->link = work->next;
	if (work->next)
		work->next->link = work->link;
	sandbox_close(work->sandbox);
	if (!work->handles) {
		dispose(work);
		return;
	}
	uv_close((uv_handle_t *)&work->pause, on_handle_closed);
	uv_close((uv_handle_t *)&work->timeout, on_handle_closed);
}

/* Tells the pool, once. The work lives on while a REST call is out. */
static void tell(struct work *work, enum provider_code code)
{
	struct provider_result result = {
		.code = code,
		.retry_after_ms = work->verdict.retry_after_ms,
		.limit = work->verdict.limit,
		.unanswered = work->verdict.status == 0 || (work->verdict.status >= 502 && work->verdict.status <= 504),
		.sandbox = code == PROVIDER_OK ? TAKE(work->sandbox) : NULL,
		.detail = work->verdict.detail,
	};
	provider_done done = work->done;
	void *ctx = work->ctx;
	struct verdict verdict = work->verdict;
	result.detail = verdict.detail;
	if (work->calling) {
		work->told = true;
		sandbox_close(TAKE(work->sandbox));
	} else {
		work_free(work);
	}
	done(ctx, &result);
}

static bool valid_name(const char *name)
{
	size_t len = strlen(name);
	return len > 0 && len <= PROVIDER_NAME_MAX;
}

/* --- create and list --- */

static void on_simple(void *ctx, const struct verdict *verdict)
{
	struct work *work = ctx;
	work->verdict = *verdict;
	tell(work, verdict->code);
}

/* The list of a client that is refused as a whole (404) says nothing about Sprites. */
static void on_list(void *ctx, const struct verdict *verdict)
{
	struct work *work = ctx;
	work->verdict = *verdict;
	tell(work, verdict->code == PROVIDER_GONE ? PROVIDER_INVALID : verdict->code);
}

/* Gives the work up when the call could not be made. */
static int started(struct work *work, int r)
{
	if (r < 0)
		work_free(work);
	return r;
}

static int create(void *self, const char *name, provider_done done, void *ctx)
{
	struct sprites_provider *provider = self;
	struct work *work = valid_name(name) ? work_new(provider, name, done, ctx) : NULL;
	if (!work)
		return valid_name(name) ? -ENOMEM : -EINVAL;
	return started(work, client_create(provider->client, name, on_simple, work));
}

static void on_found(void *ctx, const char *name, bool ours)
{
	struct work *work = ctx;
	work->found(work->ctx, name, ours);
}

static int list(void *self, const char *prefix, provider_found found, provider_done done, void *ctx)
{
	struct sprites_provider *provider = self;
	struct work *work = work_new(provider, prefix, done, ctx);
	if (!work)
		return -ENOMEM;
	work->found = found;
	return started(work, client_list(provider->client, prefix, on_found, on_list, work));
}

/* --- is it really gone? --- */

static void on_listed(void *ctx, const char *name, bool ours UNUSED)
{
	struct work *work = ctx;
	work->listed |= strcmp(name, work->name) == 0;
}

/* The second witness; `done` gets PROVIDER_OK or why the list cannot tell. */
static int ask_list(struct work *work, client_done done)
{
	work->listed = false;
	return client_list(work->provider->client, work->name, on_listed, done, work);
}

/* --- destroy --- */

static void fail(struct work *work, const char *detail, uint64_t retry_after_ms)
{
	answers_fail(&work->verdict, PROVIDER_UNAVAILABLE, detail);
	work->verdict.retry_after_ms = retry_after_ms;
	tell(work, PROVIDER_UNAVAILABLE);
}

static void on_destroy_listed(void *ctx, const struct verdict *verdict)
{
	struct work *work = ctx;
	if (verdict->code != PROVIDER_OK)
		fail(work, "delete: the Sprite may be gone, but the list could not be read", verdict->retry_after_ms);
	else if (work->listed)
		fail(work, "delete: the API denies the Sprite, but it is on the list", 0);
	else
		tell(work, PROVIDER_GONE);
}

static void confirm_absence(struct work *work)
{
	if (ask_list(work, on_destroy_listed) < 0)
		fail(work, "delete: the list could not be asked for", 0);
}

static void on_destroy_get(void *ctx, const struct verdict *verdict)
{
	struct work *work = ctx;
	if (verdict->code == PROVIDER_GONE || verdict->missing_quirk)
		confirm_absence(work);
	else
		fail(work, "delete: what became of the Sprite could not be asked for", verdict->retry_after_ms);
}

static void on_deleted(void *ctx, const struct verdict *verdict)
{
	struct work *work = ctx;
	work->verdict = *verdict;
	if (verdict->code == PROVIDER_GONE)
		confirm_absence(work);
	else if (!verdict->missing_quirk)
		tell(work, verdict->code);
	else if (client_get(work->provider->client, work->name, on_destroy_get, work) < 0)
		tell(work, PROVIDER_UNAVAILABLE);
}

static int destroy(void *self, const char *name, provider_done done, void *ctx)
{
	struct sprites_provider *provider = self;
	struct work *work = valid_name(name) ? work_new(provider, name, done, ctx) : NULL;
	if (!work)
		return valid_name(name) ? -ENOMEM : -EINVAL;
	baselines_drop(&provider->baselines, name);
	return started(work, client_delete(provider->client, name, on_deleted, work));
}

/* --- prepare --- */

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
	answers_fail(&verdict, PROVIDER_OK, "prepare: the channel stands");
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
		r = ask_list(work, on_confirmed);
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
		tell(work, action.code);
		break;
	}
}

static void on_timeout(uv_timer_t *timer)
{
	struct work *work = timer->data;
	uv_timer_stop(&work->pause);
	uv_timer_stop(&work->timeout);
	if (work->verdict.code == PROVIDER_OK)
		answers_fail(&work->verdict, PROVIDER_UNAVAILABLE, "prepare: it took too long");
	tell(work, PROVIDER_UNAVAILABLE);
}

static int prepare_as(void *self, enum preparation_kind kind, const char *name, struct provider_fence fence, provider_done done, void *ctx)
{
	struct sprites_provider *provider = self;
	struct work *work = valid_name(name) ? work_new(provider, name, done, ctx) : NULL;
	if (!work)
		return valid_name(name) ? -ENOMEM : -EINVAL;
	uint64_t budget_ms = provider->options.prepare_timeout_ms;
	work->fence = fence;
	preparation_init(&work->preparation, kind, budget_ms * 1000, clock_mono_us());
	int r = call_step(work);
	if (r < 0)
		return started(work, r);
	uv_timer_init(provider->loop, &work->pause);
	uv_timer_init(provider->loop, &work->timeout);
	work->pause.data = work->timeout.data = work;
	work->handles = 2;
	uv_timer_start(&work->timeout, on_timeout, budget_ms, 0);
	return 0;
}

static int prepare(void *self, const char *name, struct provider_fence fence, provider_done done, void *ctx)
{
	struct sprites_provider *provider = self;
	enum preparation_kind kind = provider->options.restorable ? PREPARATION_RESTORABLE : PREPARATION_NEW;
	return prepare_as(self, kind, name, fence, done, ctx);
}

static int wake(void *self, const char *name, struct provider_fence fence, provider_done done, void *ctx)
{
	return prepare_as(self, PREPARATION_WAKE, name, fence, done, ctx);
}

/* As a new one: what ran in it may have opened its network, and has no right to a checkpoint. */
static int resume(void *self, const char *name, provider_done done, void *ctx)
{
	return prepare_as(self, PREPARATION_NEW, name, (struct provider_fence){0}, done, ctx);
}

static int restore(void *self, const char *name, struct provider_fence fence, provider_done done, void *ctx)
{
	return prepare_as(self, PREPARATION_RESTORED, name, fence, done, ctx);
}

/* --- opening a network --- */

static void on_open_checked(void *ctx, const struct verdict *verdict)
{
	struct work *work = ctx;
	work->verdict = *verdict;
	tell(work, verdict->code);
}

static void on_opened(void *ctx, const struct verdict *verdict)
{
	struct work *work = ctx;
	work->verdict = *verdict;
	if (verdict->code != PROVIDER_OK)
		tell(work, verdict->code);
	else if (client_check_open(work->provider->client, work->name, work->policy, on_open_checked, work) < 0)
		fail(work, "open: the network policy could not be read back", 0);
}

static int open_network(void *self, const char *name, const char *profile, provider_done done, void *ctx)
{
	struct sprites_provider *provider = self;
	CLEANUP(buf_deinit) struct buf policy = BUF_MAX(64 * 1024);
	int r = valid_name(name) ? answers_open_policy(slice_str(profile), &policy) : -EINVAL;
	if (r < 0)
		return r;
	struct work *work = work_new(provider, name, done, ctx);
	if (!work)
		return -ENOMEM;
	work->policy = buf_take_string(&policy);
	return started(work, work->policy ? client_open_network(provider->client, name, work->policy, on_opened, work) : -ENOMEM);
}

static void abandon_preparations(void *self)
{
	struct sprites_provider *provider = self;
	for (struct work *work = provider->works; work; work = work->next)
		if (work->handles && !work->told)
			uv_timer_start(&work->timeout, on_timeout, 0, 0);
}

static const struct provider_ops ops = {.create = create,
					.prepare = prepare,
					.wake = wake,
					.resume = resume,
					.restore = restore,
					.open_network = open_network,
					.abandon = abandon_preparations,
					.destroy = destroy,
					.list = list};

struct provider sprites_provider_interface(struct sprites_provider *provider)
{
	return (struct provider){.ops = &ops, .self = provider, .recipe = "closed network; bash; shim"};
}

/* --- life --- */

static void set_default(unsigned *value, unsigned otherwise)
{
	if (!*value)
		*value = otherwise;
}

static void set_defaults(struct sprites_provider_options *options)
{
	set_default(&options->connect_timeout_ms, 10000);
	set_default(&options->call_timeout_ms, 30000);
	set_default(&options->handshake_timeout_ms, 30000);
	set_default(&options->ping_interval_ms, 15000);
	set_default(&options->dead_after_ms, 45000);
	set_default(&options->keepalive_ms, 20000);
	set_default(&options->keepalive_timeout_ms, 5000);
	set_default(&options->complete_timeout_ms, 2000);
	set_default(&options->first_run_timeout_ms, 30000);
	set_default(&options->prepare_timeout_ms, 60000);
	if (!options->max_calls)
		options->max_calls = 256;
}

/* Such bytes would end up in a header line. */
static bool valid_token(struct slice token)
{
	for (size_t i = 0; i < token.len; i++) {
		unsigned char c = (unsigned char)token.data[i];
		if (c <= 0x20 || c >= 0x7f)
			return false;
	}
	return token.len > 0 && token.len <= 4096;
}

static struct slice without_slash(struct slice url)
{
	while (url.len && url.data[url.len - 1] == '/')
		url.len--;
	return url;
}

static void on_killed(void *ctx UNUSED, const struct verdict *verdict)
{
	/* A session that has ended meanwhile is what was asked for; whoever signals also waits for the end and has a deadline. */
	if (verdict->code != PROVIDER_OK && verdict->code != PROVIDER_GONE)
		log_warning("sprites: a signal was not delivered: %s", verdict->detail);
}

static int kill_session(void *ctx, const char *name, const char *session, const char *signal)
{
	struct sprites_provider *provider = ctx;
	return client_kill(provider->client, name, session, signal, on_killed, provider);
}

static int make_client(struct sprites_provider *provider, struct curl_driver *driver, struct slice base_url)
{
	const struct sprites_provider_options *options = &provider->options;
	CLEANUP(free_ptr) char *url = slice_dup(base_url);
	if (!url)
		return -ENOMEM;
	struct client_options client_options = {
		.driver = driver,
		.base_url = url,
		.label = provider->options.label,
		.token = &provider->token,
		.connect_timeout_ms = options->connect_timeout_ms,
		.timeout_ms = options->call_timeout_ms,
		.max_calls = options->max_calls,
		.observer = options->observer,
	};
	provider->client = client_new(&client_options);
	if (!provider->client || asprintf(&provider->ws_url, "ws%s", url + strlen("http")) < 0)
		return -ENOMEM;
	provider->sandbox_options = (struct sandbox_options){
		.socket = {.loop = provider->loop,
			   .driver = driver,
			   .token = &provider->token,
			   .connect_timeout_ms = options->connect_timeout_ms,
			   .handshake_timeout_ms = options->handshake_timeout_ms,
			   .ping_interval_ms = options->ping_interval_ms,
			   .dead_after_ms = options->dead_after_ms,
			   .max_unsent = MAX_UNSENT,
			   .observer = &provider->options.observer},
		.ws_url = provider->ws_url,
		.keepalive_ms = options->keepalive_ms == UINT_MAX ? 0 : options->keepalive_ms,
		.keepalive_timeout_ms = options->keepalive_timeout_ms,
		.complete_timeout_ms = options->complete_timeout_ms,
		.kill = kill_session,
		.kill_ctx = provider,
	};
	return 0;
}

int sprites_provider_new(uv_loop_t *loop, struct curl_driver *driver, const char *base_url, const struct secret *token,
			 const struct sprites_provider_options *options, struct sprites_provider **out)
{
	struct slice url = without_slash(slice_str(base_url));
	bool http = slice_has_prefix(url, SLICE("http://")) || slice_has_prefix(url, SLICE("https://"));
	if (!http || url.len > 512 || !valid_token(secret_peek(token)))
		return -EINVAL;
	struct sprites_provider *provider = calloc(1, sizeof *provider);
	if (!provider)
		return -ENOMEM;
	provider->loop = loop;
	if (options)
		provider->options = *options;
	set_defaults(&provider->options);
	int r = secret_init(&provider->token, secret_peek(token));
	if (r == 0)
		r = make_client(provider, driver, url);
	if (r < 0) {
		sprites_provider_free(provider);
		return r;
	}
	*out = provider;
	return 0;
}

/* Its call is gone: whether it reached the API is not known. */
static void abandon(struct work *work)
{
	struct provider_result result = {.code = PROVIDER_UNAVAILABLE, .detail = "the gateway stops"};
	provider_done done = work->told ? NULL : work->done;
	void *ctx = work->ctx;
	work_free(work);
	if (done)
		done(ctx, &result);
}

void sprites_provider_free(struct sprites_provider *provider)
{
	if (!provider)
		return;
	client_free(provider->client);
	while (provider->works)
		abandon(provider->works);
	baselines_deinit(&provider->baselines);
	secret_deinit(&provider->token);
	free(provider->ws_url);
	free(provider);
}
