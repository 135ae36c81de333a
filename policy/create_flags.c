#include "policy/create_flags.h"

#include "gateway/base/utf8.h"
#include "policy/limits.h"

#include <errno.h>
#include <stdarg.h>

#define COUNT_MAX    1000000
#define CONC_MAX     1000
#define RUN_MIN_MS   1000
#define RUN_MAX_MS   LIMITS_DAY_MS
#define BYTES_MAX    (UINT64_C(1) << 40)
#define BUDGET_MAX   (UINT64_C(1000000000) * LIMITS_SECOND_MS)
#define EXPIRES_MAX  (3650 * LIMITS_DAY_MS)
#define BURST_USUAL  10
#define ECHO_MAX     60

struct flag {
	const char *name;
	const char *value; /* as the help calls it; NULL = takes none */
	const char *allowed;
	const char *meaning;
	int (*read)(struct slice text, struct create_flags *flags);
};

static int read_actor(struct slice text, struct create_flags *flags)
{
	if (!record_actor_is_valid(text))
		return -EINVAL;
	memcpy(flags->record.actor, text.data, text.len);
	return 0;
}

static int read_name(struct slice text, struct create_flags *flags)
{
	if (text.len > RECORD_TEXT_MAX || !utf8_is_valid(text))
		return -EINVAL;
	for (size_t i = 0; i < text.len; i++)
		if ((unsigned char)text.data[i] < ' ' || text.data[i] == 0x7F)
			return -EINVAL;
	if (text.len)
		memcpy(flags->record.name, text.data, text.len);
	return 0;
}

static int read_rate(struct slice text, struct create_flags *flags)
{
	struct limits_rate rate;
	int r = limits_rate(text, &rate);
	if (r == 0) {
		flags->record.rate_n = rate.count;
		flags->record.rate_per_ms = rate.per_ms;
	}
	return r;
}

static int read_actor_rate(struct slice text, struct create_flags *flags)
{
	struct limits_rate rate;
	int r = limits_rate(text, &rate);
	if (r == 0) {
		flags->record.arate_n = rate.count;
		flags->record.arate_per_ms = rate.per_ms;
	}
	return r;
}

static int read_burst(struct slice text, struct create_flags *flags)
{
	return limits_count(text, 1, COUNT_MAX, &flags->record.burst);
}

static int read_actor_burst(struct slice text, struct create_flags *flags)
{
	return limits_count(text, 1, COUNT_MAX, &flags->record.aburst);
}

static int read_conc(struct slice text, struct create_flags *flags)
{
	return limits_count(text, 1, CONC_MAX, &flags->record.conc);
}

static int read_actor_conc(struct slice text, struct create_flags *flags)
{
	return limits_count(text, 1, CONC_MAX, &flags->record.aconc);
}

static int read_budget(struct slice text, struct create_flags *flags)
{
	return limits_budget(text, LIMITS_SECOND_MS, BUDGET_MAX, &flags->record.bud_ms);
}

static int read_max_run(struct slice text, struct create_flags *flags)
{
	return limits_duration(text, RUN_MIN_MS, RUN_MAX_MS, &flags->record.max_ms);
}

static int read_max_out(struct slice text, struct create_flags *flags)
{
	return limits_bytes(text, 1, BYTES_MAX, &flags->record.max_out);
}

static int read_max_in(struct slice text, struct create_flags *flags)
{
	return limits_bytes(text, 1, BYTES_MAX, &flags->record.max_in);
}

/* ls,cat → "ls cat" */
static int read_cmd(struct slice text, struct create_flags *flags)
{
	if (!text.len || text.len > RECORD_CMDS_MAX || text.data[0] == ',' || text.data[text.len - 1] == ',')
		return -EINVAL;
	for (size_t i = 0; i < text.len; i++) {
		char c = text.data[i];
		if (c <= ' ' || c == 0x7F || (c == ',' && text.data[i - 1] == ','))
			return -EINVAL;
		flags->record.cmds[i] = c == ',' ? ' ' : c;
	}
	return 0;
}

static int read_expires(struct slice text, struct create_flags *flags)
{
	return limits_duration(text, LIMITS_SECOND_MS, EXPIRES_MAX, &flags->expires_ms);
}

static int read_json(struct slice text, struct create_flags *flags)
{
	(void)text;
	flags->json = true;
	return 0;
}

static int read_help(struct slice text, struct create_flags *flags)
{
	(void)text;
	flags->help = true;
	return 0;
}

#define RATE_ALLOWED  "COUNT/WINDOW, such as 60/1m or 1000/1d: count 1 to 1000000, window 1s to 365d"
#define COUNT_ALLOWED "a number from 1 to 1000000"
#define CONC_ALLOWED  "a number from 1 to 1000"
#define BYTES_ALLOWED "bytes, such as 4096, 64KiB, 1MiB or 2GiB: 1 to 1024GiB"

static const struct flag known[] = {
	{"--actor", "NAME", "1 to 128 printable ASCII characters without blanks and quotes",
	 "who uses the token (needed); limits may be shared by an actor's tokens", read_actor},
	{"--name", "TEXT", "at most 128 bytes of text on one line", "a note for people", read_name},
	{"--rate", "N/WINDOW", RATE_ALLOWED, "commands in a time (60/1m)", read_rate},
	{"--burst", "N", COUNT_ALLOWED, "so many of them at once (10, or N of --rate if that is less)", read_burst},
	{"--actor-rate", "N/WINDOW", RATE_ALLOWED, "the same for all tokens of the actor together (none)", read_actor_rate},
	{"--actor-burst", "N", COUNT_ALLOWED, "so many of those at once (as --burst)", read_actor_burst},
	{"--conc", "N", CONC_ALLOWED, "commands running at the same time (3)", read_conc},
	{"--actor-conc", "N", CONC_ALLOWED, "the same for all tokens of the actor together (none)", read_actor_conc},
	{"--budget", "TIME/day", "TIME/day, such as 600s/day or 2h/day: 1s to 1000000000s",
	 "sandbox time per UTC day (none)", read_budget},
	{"--max-run", "TIME", "a time, such as 60s or 5m: 1s to 1d", "longest run of one command (300s, at most the budget)",
	 read_max_run},
	{"--max-out", "BYTES", BYTES_ALLOWED, "output of one command, each stream (the gateway's limit)", read_max_out},
	{"--max-in", "BYTES", BYTES_ALLOWED, "input of one command (the gateway's limit)", read_max_in},
	{"--cmd", "A,B,...", "program names without blanks, separated by commas, 1000 bytes in all",
	 "only these programs; a shell line counts as bash (all)", read_cmd},
	{"--expires", "TIME", "a time, such as 12h or 90d: 1s to 3650d", "the token ends this long from now (never)",
	 read_expires},
	{"--json", NULL, NULL, "print {\"token\":\"…\",\"kid\":\"…\"}", read_json},
	{"--help", NULL, NULL, "show this", read_help},
};

_Static_assert(ARRAY_LEN(known) <= 32, "`given` is a bit set");

static int problem(struct create_flags *flags, const char *format, ...) PRINTF(2, 3);

static int problem(struct create_flags *flags, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(flags->problem, sizeof flags->problem, format, args);
	va_end(args);
	return CREATE_FLAGS_E_USAGE;
}

/* What was typed, safe for a terminal. */
static void quote(struct slice text, char out[ECHO_MAX + 4])
{
	size_t len = text.len < ECHO_MAX ? text.len : ECHO_MAX;
	for (size_t i = 0; i < len; i++)
		out[i] = text.data[i] >= ' ' && text.data[i] <= '~' ? text.data[i] : '?';
	memcpy(out + len, text.len > ECHO_MAX ? "..." : "", text.len > ECHO_MAX ? 4 : 1);
}

static int find(struct slice name, size_t *index)
{
	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		if (!slice_equal(name, slice_str(known[i].name)))
			continue;
		*index = i;
		return 0;
	}
	return -ENOENT;
}

/* The value of argv[*at], after = or in the next argument, which *at then names. */
static bool take_value(int argc, char **argv, int *at, struct slice rest, struct slice *value)
{
	if (rest.data)
		*value = rest;
	else if (*at + 1 < argc)
		*value = slice_str(argv[++*at]);
	else
		return false;
	return true;
}

static int read_flag(int argc, char **argv, int *at, uint32_t *given, struct create_flags *flags)
{
	struct slice name, rest = slice_str(argv[*at]), value = {0};
	char shown[ECHO_MAX + 4];
	size_t i;
	if (!slice_next(&rest, '=', &name) || find(name, &i) < 0) {
		quote(slice_str(argv[*at]), shown);
		return problem(flags, "%s is no flag of this command; --help lists them", shown);
	}
	if (*given & (UINT32_C(1) << i))
		return problem(flags, "%s is given twice", known[i].name);
	*given |= UINT32_C(1) << i;
	if (!known[i].value && rest.data)
		return problem(flags, "%s takes no value", known[i].name);
	if (known[i].value && !take_value(argc, argv, at, rest, &value))
		return problem(flags, "%s needs %s", known[i].name, known[i].allowed);
	if (known[i].read(value, flags) == 0)
		return 0;
	quote(value, shown);
	return problem(flags, "%s \"%s\": must be %s", known[i].name, shown, known[i].allowed);
}

/* A bucket that takes longer to fill than the longest window could not be counted in whole microseconds. */
static bool fills_in_time(uint64_t count, uint64_t per_ms, uint64_t burst)
{
	return burst <= LIMITS_WINDOW_MAX_MS / per_ms * count;
}

static int complete(struct create_flags *flags, bool max_run_given)
{
	struct record *record = &flags->record;
	if (!record->actor[0])
		return problem(flags, "--actor is missing: whose token is it?");
	if (!record->burst)
		record->burst = record->rate_n < BURST_USUAL ? record->rate_n : BURST_USUAL;
	if (record->aburst && !record->arate_n)
		return problem(flags, "--actor-burst needs --actor-rate");
	if (record->arate_n && !record->aburst)
		record->aburst = record->burst;
	if (!fills_in_time(record->rate_n, record->rate_per_ms, record->burst))
		return problem(flags, "--burst is too large for --rate: the burst must come back within 365d");
	if (record->arate_n && !fills_in_time(record->arate_n, record->arate_per_ms, record->aburst))
		return problem(flags, "--actor-burst is too large for --actor-rate: the burst must come back within 365d");
	if (record->bud_ms && record->max_ms > record->bud_ms) {
		if (max_run_given)
			return problem(flags, "--max-run is longer than --budget allows in a day");
		record->max_ms = record->bud_ms;
	}
	return 0;
}

int create_flags_parse(int argc, char **argv, struct create_flags *flags)
{
	*flags = (struct create_flags){0};
	record_set_defaults(&flags->record);
	flags->record.burst = 0;
	uint32_t given = 0;
	for (int i = 0; i < argc; i++) {
		int r = read_flag(argc, argv, &i, &given, flags);
		if (r)
			return r;
	}
	if (flags->help)
		return 0;
	size_t max_run = 0;
	return complete(flags, find(SLICE("--max-run"), &max_run) == 0 && (given & (UINT32_C(1) << max_run)));
}

void create_flags_help(FILE *out)
{
	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		char left[40];
		snprintf(left, sizeof left, "%s %s", known[i].name, known[i].value ? known[i].value : "");
		fprintf(out, "  %-24s %s\n", left, known[i].meaning);
	}
}
