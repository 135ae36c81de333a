#include "policy/flags.h"

#include "gateway/base/domain.h"
#include "gateway/base/hmac.h"
#include "gateway/base/utf8.h"
#include "policy/limits.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>

#define COUNT_MAX    1000000
#define CONC_MAX     1000
#define SESSIONS_MAX 100
#define RUN_MIN_MS   1000
#define RUN_MAX_MS   LIMITS_DAY_MS
#define BYTES_MAX    (UINT64_C(1) << 40)
#define MEMORY_MIN   (UINT64_C(16) << 20) /* with less hardly a program starts */
#define BUDGET_MAX   (UINT64_C(1000000000) * LIMITS_SECOND_MS)
#define EXPIRES_MAX  (3650 * LIMITS_DAY_MS)
#define ECHO_MAX     60

#define ALL       (FLAGS_TOKEN_CREATE | FLAGS_TOKEN_SET | FLAGS_POLICY_SET)
#define OF_TOKEN  (FLAGS_TOKEN_CREATE | FLAGS_TOKEN_SET)
#define REMOVABLE 8 /* none: there is no such limit */

struct flag {
	const char *name;
	const char *value; /* as the help calls it; NULL = takes none */
	const char *allowed;
	const char *meaning;
	int (*read)(struct slice text, struct flags *flags);
	uint64_t fields;   /* bits of what it sets */
	unsigned use;      /* flags_use, REMOVABLE */
};

static int read_actor(struct slice text, struct flags *flags)
{
	if (!record_actor_is_valid(text))
		return -EINVAL;
	memcpy(flags->record.actor, text.data, text.len);
	return 0;
}

static int read_name(struct slice text, struct flags *flags)
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

static int read_rate(struct slice text, struct flags *flags)
{
	struct limits_rate rate;
	int r = limits_rate(text, &rate);
	if (r == 0) {
		flags->record.rate_n = rate.count;
		flags->record.rate_per_ms = rate.per_ms;
	}
	return r;
}

static int read_actor_rate(struct slice text, struct flags *flags)
{
	struct limits_rate rate;
	int r = limits_rate(text, &rate);
	if (r == 0) {
		flags->record.arate_n = rate.count;
		flags->record.arate_per_ms = rate.per_ms;
	}
	return r;
}

static int read_burst(struct slice text, struct flags *flags)
{
	return limits_count(text, 1, COUNT_MAX, &flags->record.burst);
}

static int read_actor_burst(struct slice text, struct flags *flags)
{
	return limits_count(text, 1, COUNT_MAX, &flags->record.aburst);
}

static int read_conc(struct slice text, struct flags *flags)
{
	return limits_count(text, 1, CONC_MAX, &flags->record.conc);
}

static int read_actor_conc(struct slice text, struct flags *flags)
{
	return limits_count(text, 1, CONC_MAX, &flags->record.aconc);
}

static int read_budget(struct slice text, struct flags *flags)
{
	return limits_budget(text, LIMITS_SECOND_MS, BUDGET_MAX, &flags->record.bud_ms);
}

static int read_max_run(struct slice text, struct flags *flags)
{
	return limits_duration(text, RUN_MIN_MS, RUN_MAX_MS, &flags->record.max_ms);
}

static int read_max_out(struct slice text, struct flags *flags)
{
	return limits_bytes(text, 1, BYTES_MAX, &flags->record.max_out);
}

static int read_max_in(struct slice text, struct flags *flags)
{
	return limits_bytes(text, 1, BYTES_MAX, &flags->record.max_in);
}

static int read_max_procs(struct slice text, struct flags *flags)
{
	return limits_count(text, 1, COUNT_MAX, &flags->record.max_procs);
}

static int read_max_file(struct slice text, struct flags *flags)
{
	return limits_bytes(text, 1, BYTES_MAX, &flags->record.max_file);
}

static int read_max_mem(struct slice text, struct flags *flags)
{
	return limits_bytes(text, MEMORY_MIN, BYTES_MAX, &flags->record.max_mem);
}

static int read_budget_out(struct slice text, struct flags *flags)
{
	struct slice bytes, rest = text;
	if (!slice_next(&rest, '/', &bytes) || !slice_equal(rest, SLICE("day")))
		return -EINVAL;
	return limits_bytes(bytes, 2, BYTES_MAX, &flags->record.bud_out);
}

/* a,b → "a b"; `is_word` may be NULL. */
static int read_list(struct slice text, char *out, size_t size, bool (*is_word)(struct slice word))
{
	struct slice rest = text, word;
	if (!text.len || text.len >= size)
		return -EINVAL;
	while (slice_next(&rest, ',', &word)) {
		if (!word.len || (is_word && !is_word(word)))
			return -EINVAL;
		for (size_t i = 0; i < word.len; i++)
			if (word.data[i] <= ' ' || word.data[i] == 0x7F)
				return -EINVAL;
	}
	for (size_t i = 0; i < text.len; i++)
		out[i] = text.data[i] == ',' ? ' ' : text.data[i];
	out[text.len] = '\0';
	return 0;
}

static int read_cmd(struct slice text, struct flags *flags)
{
	return read_list(text, flags->record.cmds, sizeof flags->record.cmds, NULL);
}

static bool is_variable(struct slice word)
{
	if (slice_equal(word, SLICE("-")))
		return true;
	for (size_t i = 0; i < word.len; i++) {
		char c = word.data[i];
		bool letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
		bool digit = c >= '0' && c <= '9' && i > 0;
		if (!letter && !digit && !(c == '*' && i == word.len - 1))
			return false;
	}
	return true;
}

static int read_env(struct slice text, struct flags *flags)
{
	return read_list(text, flags->record.env_allow, sizeof flags->record.env_allow, is_variable);
}

static bool is_scope(struct slice word)
{
	return slice_equal(word, SLICE("exec:run"));
}

static int read_scope(struct slice text, struct flags *flags)
{
	return read_list(text, flags->record.scopes, sizeof flags->record.scopes, is_scope);
}

/* caller.lua has the same list. */
static bool is_limit(struct slice word)
{
	static const char *const limits[] = {"rate",          "actor-rate", "concurrency", "actor-concurrency", "budget",
					     "output-budget", "network",    "command",     "environment",       "input"};
	for (size_t i = 0; i < ARRAY_LEN(limits); i++)
		if (slice_equal(word, slice_str(limits[i])))
			return true;
	return false;
}

static int read_shadow(struct slice text, struct flags *flags)
{
	return read_list(text, flags->record.shadow, sizeof flags->record.shadow, is_limit);
}

/* 192.0.2.0/24 → <32 digits>/120. An address alone is a network of one. */
static int read_network(struct slice text, char out[40])
{
	unsigned char bytes[16] = {[10] = 0xff, [11] = 0xff};
	char address[INET6_ADDRSTRLEN];
	struct slice rest = text, host;
	if (!slice_next(&rest, '/', &host) || host.len >= sizeof address)
		return -EINVAL;
	memcpy(address, host.data, host.len);
	address[host.len] = '\0';
	bool v4 = inet_pton(AF_INET, address, bytes + 12) == 1;
	if (!v4 && inet_pton(AF_INET6, address, bytes) != 1)
		return -EINVAL;
	uint64_t bits = v4 ? 32 : 128;
	if (rest.data && slice_to_u64(rest, bits, &bits) != 0)
		return -EINVAL;
	bits += v4 ? 96 : 0;
	for (size_t i = 0; i < 128; i++)
		if (i >= bits && (bytes[i / 8] & (0x80 >> i % 8)))
			return -EINVAL; /* 192.0.2.1/24 is a mistake: which of the two was meant? */
	hex_encode(bytes, sizeof bytes, out);
	snprintf(out + 32, 8, "/%u", (unsigned)bits);
	return 0;
}

static int read_ip(struct slice text, struct flags *flags)
{
	char *out = flags->record.ip_allow;
	size_t used = 0, size = sizeof flags->record.ip_allow;
	struct slice rest = text, word;
	while (slice_next(&rest, ',', &word)) {
		char network[40];
		if (read_network(word, network) < 0 || used + strlen(network) + 2 > size)
			return -EINVAL;
		used += (size_t)snprintf(out + used, size - used, "%s%s", used ? " " : "", network);
	}
	return used ? 0 : -EINVAL;
}

static bool is_reachable(struct slice word)
{
	return slice_equal(word, SLICE("defaults")) || domain_is_pattern(word);
}

static int read_egress(struct slice text, struct flags *flags)
{
	return read_list(text, flags->record.egress, sizeof flags->record.egress, is_reachable);
}

static int read_sessions(struct slice text, struct flags *flags)
{
	return limits_count(text, 1, SESSIONS_MAX, &flags->record.sessions);
}

static int read_policy(struct slice text, struct flags *flags)
{
	if (!record_policy_name_is_valid(text))
		return -EINVAL;
	memcpy(flags->record.pol, text.data, text.len);
	flags->record.pol[text.len] = '\0';
	return 0;
}

static int read_expires(struct slice text, struct flags *flags)
{
	return limits_duration(text, LIMITS_SECOND_MS, EXPIRES_MAX, &flags->expires_ms);
}

static int read_starts(struct slice text, struct flags *flags)
{
	return limits_duration(text, LIMITS_SECOND_MS, EXPIRES_MAX, &flags->starts_ms);
}

static int read_json(struct slice text, struct flags *flags)
{
	(void)text;
	flags->json = true;
	return 0;
}

static int read_help(struct slice text, struct flags *flags)
{
	(void)text;
	flags->help = true;
	return 0;
}

#define RATE_ALLOWED  "COUNT/WINDOW, such as 60/1m or 1000/1d: count 1 to 1000000, window 1s to 365d"
#define COUNT_ALLOWED "a number from 1 to 1000000"
#define CONC_ALLOWED  "a number from 1 to 1000"
#define BYTES_ALLOWED "bytes, such as 4096, 64KiB, 1MiB or 2GiB: 1 to 1024GiB"
#define TIME_ALLOWED  "a time, such as 12h or 90d: 1s to 3650d"

#define BITS1(a)    RECORD_BIT(RECORD_##a)
#define BITS2(a, b) (RECORD_BIT(RECORD_##a) | RECORD_BIT(RECORD_##b))

static const struct flag known[] = {
	{"--actor", "NAME", "1 to 128 printable ASCII characters without blanks and quotes",
	 "who uses the token (needed); limits may be shared by an actor's tokens", read_actor, BITS1(ACTOR), FLAGS_TOKEN_CREATE},
	{"--name", "TEXT", "at most 128 bytes of text on one line", "a note for people", read_name, BITS1(NAME), ALL},
	{"--policy", "NAME", "1 to 64 of letters, digits, dot, dash and underscore",
	 "named policy: its rules, where no flag says otherwise", read_policy, BITS1(POL), OF_TOKEN | REMOVABLE},
	{"--rate", "N/WINDOW", RATE_ALLOWED, "commands in a time (60/1m)", read_rate, BITS2(RATE_N, RATE_PER_MS), ALL},
	{"--burst", "N", COUNT_ALLOWED, "so many of them at once (10, or N of --rate if that is less)", read_burst, BITS1(BURST), ALL},
	{"--actor-rate", "N/WINDOW", RATE_ALLOWED, "the same for all tokens of the actor together (none)", read_actor_rate,
	 BITS2(ARATE_N, ARATE_PER_MS), ALL | REMOVABLE},
	{"--actor-burst", "N", COUNT_ALLOWED, "so many of those at once (as --burst)", read_actor_burst, BITS1(ABURST), ALL | REMOVABLE},
	{"--conc", "N", CONC_ALLOWED, "commands running at the same time (3)", read_conc, BITS1(CONC), ALL},
	{"--actor-conc", "N", CONC_ALLOWED, "the same for all tokens of the actor together (none)", read_actor_conc, BITS1(ACONC),
	 ALL | REMOVABLE},
	{"--budget", "TIME/day", "TIME/day, such as 600s/day or 2h/day: 1s to 1000000000s", "sandbox time per UTC day (none)", read_budget,
	 BITS1(BUD_MS), ALL | REMOVABLE},
	{"--budget-out", "BYTES/day", "BYTES/day, such as 100MiB/day: 2 to 1024GiB", "output of both streams per UTC day (none)",
	 read_budget_out, BITS1(BUD_OUT), ALL | REMOVABLE},
	{"--max-run", "TIME", "a time, such as 60s or 5m: 1s to 1d", "longest run of one command (300s, at most the budget)", read_max_run,
	 BITS1(MAX_MS), ALL},
	{"--max-out", "BYTES", BYTES_ALLOWED, "output of one command, each stream (the gateway's limit)", read_max_out, BITS1(MAX_OUT),
	 ALL | REMOVABLE},
	{"--max-in", "BYTES", BYTES_ALLOWED, "input of one command (the gateway's limit)", read_max_in, BITS1(MAX_IN), ALL | REMOVABLE},
	{"--max-procs", "N", COUNT_ALLOWED, "processes in the sandbox of one command (the gateway's limit)", read_max_procs,
	 BITS1(MAX_PROCS), ALL | REMOVABLE},
	{"--max-file", "BYTES", BYTES_ALLOWED, "size of each file that a command writes (the gateway's limit)", read_max_file,
	 BITS1(MAX_FILE), ALL | REMOVABLE},
	{"--max-mem", "BYTES", "bytes, such as 64MiB or 2GiB: 16MiB to 1024GiB", "memory of each of its processes (the gateway's limit)",
	 read_max_mem, BITS1(MAX_MEM), ALL | REMOVABLE},
	{"--cmd", "A,B,...", "program names without blanks, separated by commas, 1000 bytes in all",
	 "only these programs; a shell line counts as bash (all)", read_cmd, BITS1(CMDS), ALL | REMOVABLE},
	{"--env", "A,B_*,...", "names of variables, separated by commas, 1000 bytes in all; B_* is all that begin so, - is no variable",
	 "only these variables (all)", read_env, BITS1(ENV_ALLOW), ALL | REMOVABLE},
	{"--ip", "NET,NET,...", "networks such as 192.0.2.0/24 or 2001:db8::/32, separated by commas, at most 32",
	 "only from these networks (from anywhere)", read_ip, BITS1(IP_ALLOW), ALL | REMOVABLE},
	{"--egress", "A,B,...",
	 "defaults (the list of the Sprites service) or names of domains in lower case, such as pypi.org or *.pythonhosted.org, separated by "
	 "commas, 1000 bytes in all",
	 "what commands may reach in the network (none: nothing)", read_egress, BITS1(EGRESS), ALL | REMOVABLE},
	{"--sessions", "N", "a number from 1 to 100", "named sessions at the same time (none: no sessions)", read_sessions, BITS1(SESSIONS),
	 ALL | REMOVABLE},
	{"--scope", "A,B,...", "exec:run", "what it may be used for (exec:run)", read_scope, BITS1(SCOPES), ALL},
	{"--shadow", "A,B,...",
	 "of rate, actor-rate, concurrency, actor-concurrency, budget, output-budget, network, command, environment and input",
	 "limits that refuse nobody yet: they only count and log (none)", read_shadow, BITS1(SHADOW), ALL | REMOVABLE},
	{"--not-before", "TIME", TIME_ALLOWED, "the token begins this long from now (at once)", read_starts, BITS1(NBF),
	 OF_TOKEN | REMOVABLE},
	{"--expires", "TIME", TIME_ALLOWED, "the token ends this long from now (never)", read_expires, BITS1(EXP), OF_TOKEN | REMOVABLE},
	{"--json", NULL, NULL, "for programs", read_json, 0, ALL},
	{"--help", NULL, NULL, "show this", read_help, 0, ALL},
};

_Static_assert(ARRAY_LEN(known) <= 32, "`given` is a bit set");

static int problem(struct flags *flags, const char *format, ...) PRINTF(2, 3);

static int problem(struct flags *flags, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(flags->problem, sizeof flags->problem, format, args);
	va_end(args);
	return FLAGS_E_USAGE;
}

/* What was typed, safe for a terminal. */
static void quote(struct slice text, char out[ECHO_MAX + 4])
{
	size_t len = text.len < ECHO_MAX ? text.len : ECHO_MAX;
	for (size_t i = 0; i < len; i++)
		out[i] = text.data[i] >= ' ' && text.data[i] <= '~' ? text.data[i] : '?';
	memcpy(out + len, text.len > ECHO_MAX ? "..." : "", text.len > ECHO_MAX ? 4 : 1);
}

static int find(enum flags_use use, struct slice name, size_t *index)
{
	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		if (!(known[i].use & use) || !slice_equal(name, slice_str(known[i].name)))
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

/* none: there is no such limit. inherit: what the policy says. */
static bool read_word(enum flags_use use, const struct flag *flag, struct slice value, struct flags *flags)
{
	const uint64_t gone = BITS2(POL, NBF) | BITS1(EXP);
	if ((flag->use & REMOVABLE) && slice_equal(value, SLICE("none"))) {
		flags->removed |= flag->fields & gone;
		flags->record.present |= flag->fields & ~gone;
		if (flag->fields & RECORD_BIT(RECORD_ARATE_N))
			flags->record.present |= RECORD_BIT(RECORD_ABURST);
		return true;
	}
	if (use == FLAGS_TOKEN_SET && (flag->fields & RECORD_RULES) && slice_equal(value, SLICE("inherit"))) {
		flags->removed |= flag->fields;
		return true;
	}
	return false;
}

static int read_flag(enum flags_use use, int argc, char **argv, int *at, uint32_t *given, struct flags *flags)
{
	struct slice name, rest = slice_str(argv[*at]), value = {0};
	char shown[ECHO_MAX + 4];
	size_t i;
	if (!slice_next(&rest, '=', &name) || find(use, name, &i) < 0) {
		quote(slice_str(argv[*at]), shown);
		return problem(flags, "%s is no flag of this command; --help lists them", shown);
	}
	const struct flag *flag = &known[i];
	if (*given & (UINT32_C(1) << i))
		return problem(flags, "%s is given twice", flag->name);
	*given |= UINT32_C(1) << i;
	if (!flag->value && rest.data)
		return problem(flags, "%s takes no value", flag->name);
	if (flag->value && !take_value(argc, argv, at, rest, &value))
		return problem(flags, "%s needs %s", flag->name, flag->allowed);
	if (read_word(use, flag, value, flags))
		return 0;
	if (flag->read(value, flags) < 0) {
		quote(value, shown);
		return problem(flags, "%s \"%s\": must be %s", flag->name, shown, flag->allowed);
	}
	flags->record.present |= flag->fields;
	return 0;
}

int flags_parse(enum flags_use use, int argc, char **argv, struct flags *flags)
{
	*flags = (struct flags){0};
	uint32_t given = 0;
	for (int i = 0; i < argc; i++) {
		int r = read_flag(use, argc, argv, &i, &given, flags);
		if (r)
			return r;
	}
	if (flags->help)
		return 0;
	if (use == FLAGS_TOKEN_CREATE && !flags->record.actor[0])
		return problem(flags, "--actor is missing: whose token is it?");
	if (use != FLAGS_TOKEN_CREATE && !(flags->record.present | flags->removed))
		return problem(flags, "nothing is to be changed: a flag is missing; --help lists them");
	return 0;
}

void flags_help(enum flags_use use, FILE *out)
{
	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		char left[40];
		if (!(known[i].use & use))
			continue;
		snprintf(left, sizeof left, "%s %s", known[i].name, known[i].value ? known[i].value : "");
		fprintf(out, "  %-24s %s\n", left, known[i].meaning);
	}
	fputs("  none as a value: there is no such limit.", out);
	fputs(use == FLAGS_TOKEN_SET ? " inherit: what the policy says.\n" : "\n", out);
}
