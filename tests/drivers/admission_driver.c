/*
 * admission_driver - drives one admission from standard input, for the black-box tests of the policy
 *
 *   admission_driver REDIS_URL TIMEOUT_MS PEPPER
 *
 * Lines in:   decide <n> <token> <program> <want ms> | cancel <n> | settle <n> <used ms> <bytes> | refund <n> |
 *             state | quit
 * Lines out:  JSON objects: {"n", "code", …} for a decision, {"breaker": n} for a change of the link, {"command": kind|null, "us": n},
 *             {"reaped": n}, {"unsettled": n, "up": b} for state, {"freed": true} at the end.
 */
#include "gateway/base/clock.h"
#include "gateway/base/json_text.h"
#include "policy/admission.h"
#include "tests/drivers/lines.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define CALLS_MAX 1000

struct driver {
	uv_loop_t loop;
	struct lines lines;
	struct admission *admission;
};

struct slot {
	struct admission_call *call;
	struct admission_lease lease;
	uint64_t asked_us;
};

static struct slot slots[CALLS_MAX];

static void on_done(void *ctx, const struct admission_answer *a)
{
	struct slot *slot = ctx;
	slot->call = NULL;
	slot->lease = a->lease;
	printf("{\"n\":%d,\"code\":%d,\"reason\":\"%s\",\"kid\":\"%s\",\"actor\":\"%s\",\"lease\":\"%s\",\"granted_"
	       "ms\":%" PRIu64 ",\"day\":\"%s\",\"retry_after_ms\":%" PRIu64 ",\"violated\":%s,\"rate_limit\":",
	       (int)(slot - slots), (int)a->code, a->log_reason, a->kid, a->actor, a->lease.id, a->lease.granted_ms, a->lease.day,
	       a->retry_after_ms, a->violated);
	struct buf text = BUF_MAX(4096);
	if (json_text_string(&text, slice_str(a->rate_limit)) == 0)
		printf("%.*s", SLICE_FMT(buf_peek(&text)));
	buf_deinit(&text);
	printf(",\"budget\":\"%s\",\"us\":%" PRIu64 "}\n", a->exec_budget, clock_mono_us() - slot->asked_us);
}

static void on_command(void *ctx, uint64_t duration_us, const char *error_kind)
{
	(void)ctx;
	if (error_kind)
		printf("{\"command\":\"%s\",\"us\":%" PRIu64 "}\n", error_kind, duration_us);
	else
		printf("{\"command\":null,\"us\":%" PRIu64 "}\n", duration_us);
}

static void on_link(void *ctx, bool up, unsigned breaker)
{
	(void)ctx;
	printf("{\"breaker\":%u,\"up\":%s}\n", breaker, up ? "true" : "false");
}

static void on_reaped(void *ctx, uint64_t leases)
{
	(void)ctx;
	printf("{\"reaped\":%" PRIu64 "}\n", leases);
}

static void on_freed(void *ctx)
{
	(void)ctx;
	printf("{\"freed\":true}\n");
}

static void decide(struct driver *driver, struct slot *slot, const char *token, const char *program, uint64_t want_ms)
{
	struct admission_request request = {.token = slice_str(token),
					    .program = slice_str(program),
					    .want_ms = want_ms,
					    .usual_output_bytes = 4096,
					    .most_output_bytes = 65536};
	slot->asked_us = clock_mono_us();
	int r = admission_decide(driver->admission, &request, on_done, slot, &slot->call);
	if (r != 0)
		printf("{\"n\":%d,\"error\":%d}\n", (int)(slot - slots), r);
}

static bool run_line(void *ctx, const char *line)
{
	struct driver *driver = ctx;
	unsigned n = 0;
	uint64_t a = 0, b = 0;
	char token[128], program[128];
	if (!line || strcmp(line, "quit") == 0) {
		admission_free(driver->admission, on_freed, NULL);
		return false;
	}
	if (sscanf(line, "decide %u %127s %127s %" SCNu64, &n, token, program, &a) == 4 && n < CALLS_MAX) {
		decide(driver, &slots[n], token, program, a);
	} else if (sscanf(line, "cancel %u", &n) == 1 && n < CALLS_MAX && slots[n].call) {
		admission_cancel(driver->admission, slots[n].call);
	} else if (sscanf(line, "settle %u %" SCNu64 " %" SCNu64, &n, &a, &b) == 3 && n < CALLS_MAX) {
		if (admission_settle(driver->admission, &slots[n].lease, a, b, false, NULL) != 0)
			printf("{\"full\":true}\n");
	} else if (sscanf(line, "refund %u", &n) == 1 && n < CALLS_MAX) {
		if (admission_settle(driver->admission, &slots[n].lease, 0, 0, true, NULL) != 0)
			printf("{\"full\":true}\n");
	} else if (strcmp(line, "state") == 0) {
		printf("{\"unsettled\":%zu,\"up\":%s}\n", admission_unsettled(driver->admission),
		       admission_link_up(driver->admission) ? "true" : "false");
	}
	return true;
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	struct driver driver = {.lines = {.on_line = run_line, .ctx = &driver}};
	struct secret pepper;
	if (uv_loop_init(&driver.loop) != 0 || secret_init(&pepper, slice_str(argv[3])) != 0)
		return 1;
	struct admission_options options = {
		.loop = &driver.loop,
		.redis_url = argv[1],
		.timeout_ms = (unsigned)strtoul(argv[2], NULL, 10),
		.pepper = &pepper,
		.max_pending = 64,
		.max_unsettled = 256,
		.observer = {.on_command = on_command, .on_link = on_link, .on_reaped = on_reaped},
	};
	driver.admission = admission_new(&options);
	if (!driver.admission)
		return 1;
	lines_start(&driver.lines, &driver.loop);
	uv_run(&driver.loop, UV_RUN_DEFAULT);
	int r = uv_loop_close(&driver.loop);
	buf_deinit(&driver.lines.text);
	secret_deinit(&pepper);
	return r == 0 ? 0 : 3;
}
