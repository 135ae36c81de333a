/*
 * admission_load - what asking the policy costs its own process, with so many questions under way
 *
 *   admission_load ping|admit|grant|pair REDIS_URL TOKEN PEPPER IN_FLIGHT COUNT
 *
 * ping: PING over the same link. admit: the question alone. grant: a question that must be granted. pair: the same, and its settlement.
 * Prints one JSON object: {"count", "granted", "cpu_us", "wall_us"}, both of one.
 */
#include "gateway/base/clock.h"
#include "policy/admission.h"
#include "policy/link.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#define IN_FLIGHT_MAX 1024
#define WARM_UP       2000
#define UNSETTLED_MAX 256

enum mode { PING, ADMIT, GRANT, PAIR };

static struct load {
	enum mode mode;
	uv_loop_t loop;
	struct link *link;
	struct admission *admission;
	const char *token;
	unsigned in_flight;
	uint64_t count, asked, answered, granted;
	uint64_t begun_us, cpu_us, took_us;
	uv_timer_t settled;
	struct link_command *waiting[IN_FLIGHT_MAX]; /* until fewer are to be settled */
	unsigned waiting_count;
} load;

static struct link_command commands[IN_FLIGHT_MAX];

static uint64_t cpu_us(void)
{
	struct rusage use;
	getrusage(RUSAGE_SELF, &use);
	return (uint64_t)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1000000 + (uint64_t)(use.ru_utime.tv_usec + use.ru_stime.tv_usec);
}

static void give_up(const char *what)
{
	fprintf(stderr, "admission_load: %s\n", what);
	_Exit(1);
}

static void finish(void)
{
	load.took_us = clock_mono_us() - load.begun_us;
	load.cpu_us = cpu_us() - load.cpu_us;
	printf("{\"count\":%llu,\"granted\":%llu,\"cpu_us\":%.3f,\"wall_us\":%.3f}\n", (unsigned long long)load.count,
	       (unsigned long long)load.granted, (double)load.cpu_us / (double)load.count, (double)load.took_us / (double)load.count);
	fflush(stdout);
	_Exit(0);
}

static void ask(struct link_command *command);

static void on_settle_poll(uv_timer_t *timer)
{
	bool all_answered = load.answered == load.count + WARM_UP;
	if (all_answered && !admission_unsettled(load.admission))
		finish();
	while (load.waiting_count && admission_unsettled(load.admission) < UNSETTLED_MAX)
		ask(load.waiting[--load.waiting_count]);
	if (!load.waiting_count && !all_answered)
		uv_timer_stop(timer);
}

/* One is answered: the next is asked; the measurement begins after the first WARM_UP. */
static void next(struct link_command *command, bool granted)
{
	load.granted += granted;
	if (++load.answered == WARM_UP) {
		load.granted = 0;
		load.begun_us = clock_mono_us();
		load.cpu_us = cpu_us();
	}
	if (load.answered == load.count + WARM_UP && load.mode != PAIR)
		finish();
	else if (load.answered == load.count + WARM_UP)
		uv_timer_start(&load.settled, on_settle_poll, 0, 1);
	else if (load.asked + load.waiting_count >= load.count + WARM_UP)
		return;
	else if (load.mode != PAIR || admission_unsettled(load.admission) < UNSETTLED_MAX)
		ask(command);
	else
		load.waiting[load.waiting_count++] = command;
	if (load.waiting_count && !uv_is_active((uv_handle_t *)&load.settled))
		uv_timer_start(&load.settled, on_settle_poll, 1, 1);
}

static void on_pong(struct link_command *command, enum link_event event, const struct redisReply *reply)
{
	(void)reply;
	if (event != LINK_REPLY)
		give_up("a PING was not answered");
	next(command, false);
}

static void on_decided(void *ctx, const struct admission_answer *answer)
{
	bool granted = answer->code == ADMISSION_GRANTED;
	if (answer->code == ADMISSION_UNAVAILABLE || answer->code == ADMISSION_INVALID_TOKEN || (load.mode >= GRANT && !granted))
		give_up(answer->log_reason);
	if (load.mode == PAIR && admission_settle(load.admission, &answer->lease, 1, 100, false, NULL) != 0)
		give_up("a lease could not be settled");
	next(ctx, granted);
}

static void ask(struct link_command *command)
{
	static const char *const words[] = {"PING"};
	static const size_t lengths[] = {4};
	load.asked++;
	if (load.mode == PING) {
		*command = (struct link_command){.event = on_pong};
		if (link_send(load.link, command, 1, (const char **)(uintptr_t)words, lengths) != 0)
			give_up("a PING could not be sent");
		return;
	}
	struct admission_call *call;
	struct admission_request request = {.token = slice_str(load.token),
					    .program = SLICE("bash"),
					    .want_ms = 1000,
					    .usual_output_bytes = 4096,
					    .most_output_bytes = 65536};
	if (admission_decide(load.admission, &request, on_decided, command, &call) != 0)
		give_up("no memory");
}

static void begin(void)
{
	for (unsigned i = 0; i < load.in_flight; i++)
		ask(&commands[i]);
}

static void on_link(void *ctx, bool up, unsigned breaker)
{
	(void)ctx;
	(void)breaker;
	if (up && !load.asked)
		begin();
}

static void on_state(void *ctx, enum link_breaker breaker)
{
	on_link(ctx, breaker == LINK_BREAKER_CLOSED, 0);
}

int main(int argc, char **argv)
{
	static const char *const modes[] = {"ping", "admit", "grant", "pair"};
	struct secret pepper;
	if (argc != 7)
		return 2;
	while (load.mode <= PAIR && strcmp(argv[1], modes[load.mode]) != 0)
		load.mode++;
	load.token = argv[3];
	load.in_flight = (unsigned)strtoul(argv[5], NULL, 10);
	load.count = strtoull(argv[6], NULL, 10);
	if (load.mode > PAIR || !load.in_flight || load.in_flight > IN_FLIGHT_MAX || uv_loop_init(&load.loop) != 0 ||
	    secret_init(&pepper, slice_str(argv[4])) != 0)
		return 2;
	uv_timer_init(&load.loop, &load.settled);
	struct link_options link = {.loop = &load.loop, .url = slice_str(argv[2]), .timeout_ms = 5000, .on_state = on_state};
	struct admission_options admission = {.loop = &load.loop,
					      .redis_url = argv[2],
					      .timeout_ms = 5000,
					      .pepper = &pepper,
					      .max_pending = IN_FLIGHT_MAX,
					      .max_unsettled = 4 * IN_FLIGHT_MAX,
					      .observer = {.on_link = on_link}};
	if (load.mode == PING)
		load.link = link_new(&link);
	else
		load.admission = admission_new(&admission);
	if (!load.link && !load.admission)
		return 1;
	uv_run(&load.loop, UV_RUN_DEFAULT);
	return 1;
}
