#include "gateway/doctor.h"

#include "gateway/base/clock.h"
#include "gateway/base/json_text.h"
#include "gateway/curl/curl_probe.h"
#include "gateway/endpoint/identity.h"
#include "gateway/json/json.h"
#include "gateway/serve.h"
#include "policy/checkup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROBE_MS 5000
#define ROWS_MS  4000 /* after that */

static const char *const status_names[] = {"ok", "warn", "fail"};

/* One line of the report. It fits a pipe's atomic write, so a process that is killed leaves none half. */
struct line {
	enum checkup_status status;
	char name[24], detail[320], advice[256];
};

struct report {
	bool json, failed;
	size_t count;
	struct buf text; /* of the JSON array */
};

struct exam {
	const char *name;
	void (*run)(const struct config *config, checkup_tell tell, void *ctx);
	pid_t pid;
	int fd;
};

/* --- telling ------------------------------------------------------------------------------------------------------------------ */

static void put_member(struct report *report, const char *before, const char *text)
{
	if (buf_append(&report->text, slice_str(before)) < 0 || json_text_string(&report->text, slice_str(text)) < 0)
		report->failed = true;
}

static void put_line(struct report *report, const struct line *line)
{
	report->failed |= line->status == CHECKUP_FAIL;
	if (!report->json) {
		printf("%-5s %-16s %s\n", status_names[line->status], line->name, line->detail);
		if (line->advice[0])
			printf("      %-16s %s\n", "", line->advice);
		fflush(stdout);
		return;
	}
	put_member(report, report->count++ ? ",{\"name\":" : "{\"name\":", line->name);
	put_member(report, ",\"status\":", status_names[line->status]);
	put_member(report, ",\"detail\":", line->detail);
	if (line->advice[0])
		put_member(report, ",\"advice\":", line->advice);
	if (buf_append_char(&report->text, '}') < 0)
		report->failed = true;
}

static struct line make_line(enum checkup_status status, const char *name, const char *detail, const char *advice)
{
	struct line line = {.status = status};
	snprintf(line.name, sizeof line.name, "%s", name);
	snprintf(line.detail, sizeof line.detail, "%s", detail);
	snprintf(line.advice, sizeof line.advice, "%s", advice ? advice : "");
	return line;
}

static int finish(struct report *report)
{
	if (report->json)
		printf("{\"ok\":%s,\"checks\":[%.*s]}\n", report->failed ? "false" : "true", SLICE_FMT(buf_peek(&report->text)));
	buf_deinit(&report->text);
	return report->failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* --- what is looked at -------------------------------------------------------------------------------------------------------- */

struct redis_exam {
	struct identity_rules rules;
	checkup_tell tell;
	void *ctx;
};

static const char *named_policy(void *ctx, size_t i)
{
	const struct redis_exam *exam = ctx;
	return identity_policy(&exam->rules, i);
}

static void pass_on(void *ctx, const struct checkup *checkup)
{
	const struct redis_exam *exam = ctx;
	exam->tell(exam->ctx, checkup);
}

static void examine_redis(const struct config *config, checkup_tell tell, void *ctx)
{
	struct redis_exam exam = {.tell = tell, .ctx = ctx};
	char problem[IDENTITY_PROBLEM];
	if (identity_init(&exam.rules, &(struct identity_options){.rules = config->identity_rules}, problem) < 0)
		_exit(EXIT_FAILURE); /* out of memory: they have been checked */
	checkup_redis(&(struct checkup_options){.redis_url = config->redis_url,
						.timeout_ms = config->redis_timeout_ms,
						.policy = named_policy,
						.tell = pass_on,
						.ctx = &exam});
	identity_deinit(&exam.rules);
}

static void ask(const struct curl_probe *probe, struct curl_probe_result *result)
{
	if (curl_probe(probe, result) < 0)
		snprintf(result->error, sizeof result->error, "out of memory");
}

static void examine_sprites(const struct config *config, checkup_tell tell, void *ctx)
{
	char url[1200], detail[320];
	size_t len = strlen(config->sprites_url);
	while (len && config->sprites_url[len - 1] == '/')
		len--;
	snprintf(url, sizeof url, "%.*s/v1/sprites?max_results=1", (int)len, config->sprites_url);
	struct curl_probe_result result;
	ask(&(struct curl_probe){.url = url, .token = &config->sprites_token, .timeout_ms = PROBE_MS}, &result);
	struct checkup checkup = {.name = "sprites", .detail = detail, .status = CHECKUP_FAIL};
	snprintf(detail, sizeof detail, "answers %ld after %llu ms", result.status, (unsigned long long)result.took_us / 1000);
	if (!result.status) {
		snprintf(detail, sizeof detail, "%s", result.error);
		checkup.advice = "Check SPRITES_URL and the way there: without it no command can run.";
	} else if (result.status == 200) {
		checkup.status = CHECKUP_OK;
		snprintf(detail, sizeof detail, "answers after %llu ms and accepts the token", (unsigned long long)result.took_us / 1000);
	} else if (result.status == 401 || result.status == 403) {
		snprintf(detail, sizeof detail, "the token is refused (%ld)", result.status);
		checkup.advice = "Set SPRITES_TOKEN to a valid token of the organisation that pays for the sandboxes.";
	} else if (result.status == 429) {
		checkup.status = CHECKUP_WARN;
		checkup.advice = "The organisation's limit of calls is reached: wait, or ask Sprites for more.";
	} else {
		checkup.advice = result.status >= 500 ? "The service is in trouble: see its status page, try again."
						      : "SPRITES_URL is not the Sprites API.";
	}
	tell(ctx, &checkup);
}

static void ask_datasette(const struct config *config, const char *page, long timeout_ms, struct buf *body,
			  struct curl_probe_result *result)
{
	struct slice where = slice_str(config->datasette_url);
	const char *path = slice_has_prefix(where, SLICE("http+unix://")) ? where.data + 12
			   : slice_has_prefix(where, SLICE("unix:"))      ? where.data + 5
									  : NULL;
	char url[1200];
	bool slash = where.len && where.data[where.len - 1] == '/';
	snprintf(url, sizeof url, "%s%s-/%s", path ? "http://localhost/" : config->datasette_url, path || slash ? "" : "/", page);
	ask(
		&(struct curl_probe){
			.url = url, .unix_path = path, .ca_file = config->datasette_ca_file, .timeout_ms = timeout_ms, .body = body},
		result);
}

/* What Datasette takes at once. False: it does not tell, `why`. */
static bool insert_rows(const struct config *config, uint64_t *rows, char why[300])
{
	struct curl_probe_result result;
	struct json_failure failure;
	CLEANUP(buf_deinit) struct buf body = BUF_MAX(64 * 1024);
	ask_datasette(config, "settings.json", ROWS_MS, &body, &result);
	if (!result.status)
		snprintf(why, 300, "%s", result.error);
	else
		snprintf(why, 300, "/-/settings.json answers %ld", result.status);
	if (result.status != 200)
		return false;
	snprintf(why, 300, "/-/settings.json has no max_insert_rows");
	CLEANUP(json_decref_ptr) json_t *settings = json_parse(buf_peek(&body), 32, &failure);
	return settings && json_get_u64(settings, "max_insert_rows", rows);
}

static void compare_rows(const struct config *config, checkup_tell tell, void *ctx)
{
	char detail[400], why[300];
	uint64_t rows = 0, ours = config->datasette_insert_rows;
	struct checkup checkup = {.name = "datasette-rows", .detail = detail, .status = CHECKUP_WARN};
	if (!insert_rows(config, &rows, why)) {
		snprintf(detail, sizeof detail, "Datasette's max_insert_rows is not known: %s", why);
		checkup.advice = "Look yourself: DATASETTE_INSERT_ROWS must not be above it.";
	} else if (ours > rows) {
		snprintf(detail, sizeof detail, "DATASETTE_INSERT_ROWS is %" PRIu64 ", Datasette's max_insert_rows only %" PRIu64, ours,
			 rows);
		checkup.advice = "Lower the one or raise the other: /-/insert and /-/upsert refuse the rows of stdout_to with 400.";
	} else {
		checkup.status = CHECKUP_OK;
		snprintf(detail, sizeof detail, "%" PRIu64 " at once; Datasette takes %" PRIu64, ours, rows);
	}
	tell(ctx, &checkup);
}

static void examine_datasette(const struct config *config, checkup_tell tell, void *ctx)
{
	char detail[320];
	struct curl_probe_result result;
	ask_datasette(config, "versions.json", PROBE_MS, NULL, &result);
	struct checkup checkup = {.name = "datasette", .detail = detail, .status = CHECKUP_OK};
	snprintf(detail, sizeof detail, "answers %ld after %llu ms", result.status, (unsigned long long)result.took_us / 1000);
	if (!result.status) {
		snprintf(detail, sizeof detail, "%s", result.error);
		checkup.status = CHECKUP_FAIL;
		checkup.advice = "Check DATASETTE_URL and that Datasette runs and listens there: every page is 502 now.";
	} else if (result.status >= 500) {
		checkup.status = CHECKUP_FAIL;
		checkup.advice = "Datasette is in trouble: see its log.";
	} else if (result.status != 200 && result.status != 401 && result.status != 403) {
		checkup.status = CHECKUP_WARN;
		checkup.advice = "Is it Datasette? /-/versions.json should be there.";
	}
	tell(ctx, &checkup);
	if (checkup.status == CHECKUP_OK)
		compare_rows(config, tell, ctx);
}

/* --- processes ---------------------------------------------------------------------------------------------------------------- */

static void write_line(void *ctx, const struct checkup *checkup)
{
	const struct line line = make_line(checkup->status, checkup->name, checkup->detail, checkup->advice);
	if (write(*(const int *)ctx, &line, sizeof line) != sizeof line)
		_exit(EXIT_FAILURE);
}

static int start(struct exam *exam, const struct config *config)
{
	int pipe_fds[2];
	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return -errno;
	exam->pid = fork();
	if (exam->pid == 0) {
		exam->run(config, write_line, &pipe_fds[1]);
		_exit(EXIT_SUCCESS);
	}
	int r = exam->pid < 0 ? -errno : 0;
	close(pipe_fds[1]);
	exam->fd = pipe_fds[0];
	return r;
}

/* False: its time is up. */
static bool await(int fd, uint64_t deadline_us)
{
	struct pollfd ready = {.fd = fd, .events = POLLIN};
	int r;
	do {
		uint64_t now = clock_mono_us();
		r = poll(&ready, 1, now < deadline_us ? (int)((deadline_us - now + 999) / 1000) : 0);
	} while (r < 0 && errno == EINTR);
	return r > 0;
}

static void collect(struct exam *exam, struct report *report, uint64_t deadline_us)
{
	struct line line;
	bool late = false;
	while (!late) {
		late = !await(exam->fd, deadline_us);
		if (!late && read(exam->fd, &line, sizeof line) != sizeof line)
			break;
		if (!late)
			put_line(report, &line);
	}
	int status = 0;
	close(exam->fd);
	if (late)
		kill(exam->pid, SIGKILL);
	(void)waitpid(exam->pid, &status, 0);
	if (late)
		line = make_line(CHECKUP_FAIL, exam->name, "no result within 10 s",
				 "Something there accepts connections and then is silent: look at it.");
	else if (!WIFEXITED(status) || WEXITSTATUS(status) != EXIT_SUCCESS)
		line = make_line(CHECKUP_FAIL, exam->name, "the examination ended before its result", NULL);
	else
		return;
	put_line(report, &line);
}

_Static_assert(DOCTOR_SECONDS == 10, "said above and in the documentation");

int doctor(const struct config *config, bool json)
{
	struct exam exams[] = {
		{"redis", examine_redis, 0, -1}, {"sprites", examine_sprites, 0, -1}, {"datasette", examine_datasette, 0, -1}};
	struct report report = {.json = json, .text = BUF_MAX(64 * 1024)};
	int started[ARRAY_LEN(exams)];
	CLEANUP(buf_deinit) struct buf faults = BUF_MAX(64 * 1024);
	if (serve_check(config, &faults) < 0)
		return doctor_settings_failed(buf_peek(&faults), json);
	fflush(stdout);
	for (size_t i = 0; i < ARRAY_LEN(exams); i++)
		started[i] = start(&exams[i], config);
	uint64_t deadline_us = clock_mono_us() + DOCTOR_SECONDS * 1000000ULL;
	struct line settings = make_line(CHECKUP_OK, "settings", "a gateway can start with them", NULL);
	put_line(&report, &settings);
	for (size_t i = 0; i < ARRAY_LEN(exams); i++) {
		if (started[i] == 0) {
			collect(&exams[i], &report, deadline_us);
			continue;
		}
		struct line line = make_line(CHECKUP_FAIL, exams[i].name, strerror(-started[i]), NULL);
		put_line(&report, &line);
	}
	return finish(&report);
}

int doctor_settings_failed(struct slice faults, bool json)
{
	static const char advice[] = "Correct it; `spritegate help config` lists what is allowed. Nothing else was looked at.";
	struct report report = {.json = json, .text = BUF_MAX(64 * 1024)};
	struct slice fault;
	while (slice_next(&faults, '\n', &fault)) {
		char detail[320];
		snprintf(detail, sizeof detail, "%.*s", (int)(fault.len < sizeof detail ? fault.len : sizeof detail), fault.data);
		struct line line = make_line(CHECKUP_FAIL, "settings", detail, advice);
		if (fault.len)
			put_line(&report, &line);
	}
	return finish(&report);
}
