/*
 * leases_driver - drives the leases of a shared pool from standard input, for their black-box tests
 *
 *   leases_driver REDIS_URL TIMEOUT_MS POOL INSTANCE
 *
 * Lines in:   join | beat <hot> <leased> <nusd> <closed ms> | reserve <name> <max> <stock> <limit> <window ms> [<may run>] |
 *             note <name> <state> | forget <name> | take <name or -> <state> <generation> [<may run>] | run <name> <may run> |
 *             adopt <most> <own> |
 *             sweep <name>... | restore <state> <name>... | leave | quit
 * Lines out:  JSON objects: {"op", "code", "detail", ...} for an answer, {"found": name, "state"} and {"struck": name, "recorded": n} before
 *             it, {"event": word, "name"} for what the listener hears, {"freed": true} at the end.
 */
#include "gateway/exec/leases.h"

#include "gateway/base/clock.h"
#include "tests/drivers/lines.h"

#include <inttypes.h>
#include <stdio.h>

#define NAMES_MAX 6000

struct driver {
	uv_loop_t loop;
	struct lines lines;
	struct leases *leases;
	struct lease_table table;
};

struct question {
	char op[16];
	uint64_t asked_us;
};

static const char *const states[] = {"intent", "creating", "preparing", "warm", "hot", "leased", "recycling", "quarantine", "destroying"};

static enum pool_state state_of(const char *word)
{
	for (size_t i = 0; i < ARRAY_LEN(states); i++)
		if (strcmp(states[i], word) == 0)
			return (enum pool_state)i;
	abort();
}

static struct question *ask(const char *op)
{
	struct question *question = calloc(1, sizeof *question);
	if (!question)
		abort();
	snprintf(question->op, sizeof question->op, "%s", op);
	question->asked_us = clock_mono_us();
	return question;
}

static void on_done(void *ctx, const struct lease_result *r)
{
	struct question *question = ctx;
	printf("{\"op\":\"%s\",\"code\":%d,\"refusal\":%d,\"retry_after_ms\":%" PRIu64 ",\"fresh\":%d,\"detail\":\"%s\",\"us\":%" PRIu64,
	       question->op, (int)r->code, (int)r->refusal, r->retry_after_ms, r->fresh, r->detail, clock_mono_us() - question->asked_us);
	if (r->fleet)
		printf(",\"total\":%zu,\"own\":%zu,\"warm\":%zu,\"ended\":%zu,\"instances\":%zu,\"leased\":%zu,"
		       "\"spent\":%" PRIu64 ",\"closed_ms\":%" PRIu64 ",\"recovering\":%d,\"list\":%d,\"superseded\":%d",
		       r->fleet->total, r->fleet->own, r->fleet->warm, r->fleet->ended, r->fleet->instances, r->fleet->others_leased,
		       r->fleet->spent_nusd, r->fleet->closed_ms, r->fleet->recovering, r->fleet->list, r->fleet->superseded);
	if (r->record)
		printf(",\"name\":\"%s\",\"state\":\"%s\"", r->record->name, states[r->record->state]);
	printf("}\n");
	free(question);
}

static void on_adopted(void *ctx, const struct lease_record *record)
{
	(void)ctx;
	printf("{\"found\":\"%s\",\"state\":\"%s\"}\n", record->name, states[record->state]);
}

static void on_struck(void *ctx, const char *name, bool recorded)
{
	(void)ctx;
	printf("{\"struck\":\"%s\",\"recorded\":%d}\n", name, recorded);
}

static void on_revoked(void *ctx, const char *name)
{
	(void)ctx;
	printf("{\"event\":\"revoked\",\"name\":\"%s\"}\n", name);
}

static void on_lost(void *ctx)
{
	(void)ctx;
	printf("{\"event\":\"lost\"}\n");
}

static void on_fenced(void *ctx)
{
	(void)ctx;
	printf("{\"event\":\"fenced\"}\n");
}

static void on_flushed(void *ctx)
{
	(void)ctx;
	printf("{\"event\":\"flushed\"}\n");
}

static void on_freed(void *ctx)
{
	(void)ctx;
	printf("{\"freed\":true}\n");
}

static struct lease_record record_of(const char *name, const char *state)
{
	struct lease_record record = {.state = state_of(state)};
	snprintf(record.name, sizeof record.name, "%s", name);
	if (record.state == POOL_LEASED) {
		record.tenant = 0xabcdef;
		record.lease_ms = 30000;
		snprintf(record.exec_id, sizeof record.exec_id, "exec-1");
	}
	return record;
}

/* The words of a line from the `first` on. */
static size_t split(char *text, unsigned first, const char *out[NAMES_MAX])
{
	size_t n = 0, at = 0;
	for (char *rest = text, *word; (word = strsep(&rest, " ")); at++)
		if (at >= first && n < NAMES_MAX)
			out[n++] = word;
	return n;
}

static int ask_many(struct driver *driver, char *line, const char *op)
{
	static const char *names[NAMES_MAX];
	static struct lease_record records[NAMES_MAX];
	const struct lease_ops *ops = driver->table.ops;
	if (strcmp(op, "sweep") == 0)
		return ops->sweep(driver->table.self, names, split(line, 1, names), on_struck, on_done, ask(op));
	size_t n = split(line, 1, names);
	for (size_t i = 1; i < n; i++)
		records[i - 1] = record_of(names[i], names[0]);
	return ops->restore(driver->table.self, records, n - 1, on_done, ask(op));
}

static int ask_one(struct driver *driver, const char *line, const char *op)
{
	const struct lease_ops *ops = driver->table.ops;
	void *self = driver->table.self;
	char name[128] = "", state[32] = "", generation[32] = "";
	size_t a = 0, b = 0, running = 0;
	uint64_t c = 0, d = 0;
	unsigned limit = 0;
	if (strcmp(op, "join") == 0)
		return ops->join(self, on_done, ask(op));
	if (strcmp(op, "leave") == 0)
		return ops->leave(self, on_done, ask(op));
	if (sscanf(line, "beat %zu %zu %" SCNu64 " %" SCNu64, &a, &b, &c, &d) == 4)
		return ops->beat(self, &(struct lease_report){.hot_target = a, .leased = b, .spent_nusd = c, .closed_ms = d}, on_done,
				 ask(op));
	if (sscanf(line, "reserve %127s %zu %zu %u %" SCNu64 " %zu", name, &a, &b, &limit, &c, &running) >= 5)
		return ops->reserve(self, &(struct lease_wish){name, a, b, limit, c, running}, on_done, ask(op));
	if (sscanf(line, "take %127s %31s %31s %zu", name, state, generation, &running) >= 3)
		return ops->take(self, &(struct lease_want){strcmp(name, "-") ? name : NULL, generation, state_of(state), running, false},
				 on_done, ask(op));
	if (sscanf(line, "run %127s %zu", name, &running) == 2)
		return ops->run(self, name, running, on_done, ask(op));
	if (sscanf(line, "adopt %zu %zu", &a, &b) == 2)
		return ops->adopt(self, a, b, on_adopted, on_done, ask(op));
	if (sscanf(line, "note %127s %31s", name, state) == 2) {
		struct lease_record record = record_of(name, state);
		ops->note(self, &record);
	} else if (sscanf(line, "forget %127s", name) == 1) {
		ops->forget(self, name);
	}
	return 0;
}

static bool run_line(void *ctx, const char *text)
{
	struct driver *driver = ctx;
	char op[16] = "";
	if (!text || strcmp(text, "quit") == 0) {
		driver->table.ops->listen(driver->table.self, NULL);
		leases_free(driver->leases, on_freed, NULL);
		return false;
	}
	CLEANUP(free_ptr) char *line = slice_dup(slice_str(text));
	if (!line || sscanf(line, "%15s", op) != 1)
		abort();
	bool many = strcmp(op, "sweep") == 0 || strcmp(op, "restore") == 0;
	int r = many ? ask_many(driver, line, op) : ask_one(driver, line, op);
	if (r < 0)
		printf("{\"op\":\"%s\",\"error\":%d}\n", op, r);
	return true;
}

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	struct driver driver = {.lines = {.on_line = run_line, .ctx = &driver}};
	if (uv_loop_init(&driver.loop) != 0)
		return 1;
	const struct leases_options options = {.loop = &driver.loop,
					       .redis_url = argv[1],
					       .timeout_ms = (unsigned)strtoul(argv[2], NULL, 10),
					       .pool = argv[3],
					       .instance = argv[4]};
	driver.leases = leases_new(&options);
	if (!driver.leases)
		return 1;
	driver.table = leases_table(driver.leases);
	driver.table.ops->listen(driver.table.self, &(struct lease_listener){on_revoked, on_lost, on_fenced, on_flushed, NULL});
	lines_start(&driver.lines, &driver.loop);
	uv_run(&driver.loop, UV_RUN_DEFAULT);
	int r = uv_loop_close(&driver.loop);
	buf_deinit(&driver.lines.text);
	return r == 0 ? 0 : 3;
}
