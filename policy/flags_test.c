#include "policy/flags.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>

/* The words of one command line, separated by blanks. */
static int parse(const char *line, struct flags *flags)
{
	char text[2000], *argv[40], *rest = NULL;
	int argc = 0;
	snprintf(text, sizeof text, "%s", line);
	for (char *word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
		argv[argc++] = word;
	return flags_parse(FLAGS_TOKEN_CREATE, argc, argv, flags);
}

static struct record good(const char *line)
{
	struct flags flags;
	int r = parse(line, &flags);
	if (r)
		print_error("%s: %s\n", line, flags.problem);
	assert_int_equal(r, 0);
	return flags.record;
}

static void bad(const char *line, const char *problem)
{
	struct flags flags;
	assert_int_equal(parse(line, &flags), FLAGS_E_USAGE);
	assert_string_equal(flags.problem, problem);
}

static void test_every_flag(void **state UNUSED)
{
	struct flags flags;
	assert_int_equal(
		parse("--actor ann --name note --rate 60/1m --burst 5 --actor-rate 7/1h --actor-burst 2 --conc 4 --actor-conc 6 "
		      "--budget 600s/day --max-run 60s --max-out 1MiB --max-in=64KiB --max-procs 64 --max-file 8MiB --max-mem 1GiB --cmd ls,cat "
		      "--expires 90d --json",
		      &flags),
		0);
	const struct record *r = &flags.record;
	assert_string_equal(r->actor, "ann");
	assert_string_equal(r->name, "note");
	assert_int_equal(r->rate_n, 60);
	assert_int_equal(r->rate_per_ms, 60000);
	assert_int_equal(r->burst, 5);
	assert_int_equal(r->arate_n, 7);
	assert_int_equal(r->arate_per_ms, 3600000);
	assert_int_equal(r->aburst, 2);
	assert_int_equal(r->conc, 4);
	assert_int_equal(r->aconc, 6);
	assert_int_equal(r->bud_ms, 600000);
	assert_int_equal(r->max_ms, 60000);
	assert_int_equal(r->max_out, 1048576);
	assert_int_equal(r->max_in, 65536);
	assert_int_equal(r->max_procs, 64);
	assert_int_equal(r->max_file, 8 << 20);
	assert_int_equal(r->max_mem, 1 << 30);
	assert_string_equal(r->cmds, "ls cat");
	assert_int_equal(flags.expires_ms, UINT64_C(7776000000));
	assert_true(flags.json);
}

static int parse_set(enum flags_use use, const char *line, struct flags *flags)
{
	char text[2000], *argv[40], *rest = NULL;
	int argc = 0;
	snprintf(text, sizeof text, "%s", line);
	for (char *word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
		argv[argc++] = word;
	return flags_parse(use, argc, argv, flags);
}

/* Only what is given is present. */
static void test_changes(void **state UNUSED)
{
	struct flags flags;
	assert_int_equal(parse_set(FLAGS_TOKEN_SET,
				   "--rate 5/1h --conc inherit --budget none --cmd none --expires none --policy none --actor-rate none",
				   &flags),
			 0);
	assert_int_equal(flags.record.present, RECORD_BIT(RECORD_RATE_N) | RECORD_BIT(RECORD_RATE_PER_MS) | RECORD_BIT(RECORD_BUD_MS) |
						       RECORD_BIT(RECORD_CMDS) | RECORD_BIT(RECORD_ARATE_N) |
						       RECORD_BIT(RECORD_ARATE_PER_MS) | RECORD_BIT(RECORD_ABURST));
	assert_int_equal(flags.removed, RECORD_BIT(RECORD_CONC) | RECORD_BIT(RECORD_EXP) | RECORD_BIT(RECORD_POL));
	assert_int_equal(flags.record.bud_ms + flags.record.arate_n, 0);
	assert_int_equal(parse_set(FLAGS_TOKEN_SET, "", &flags), FLAGS_E_USAGE);
	assert_int_equal(parse_set(FLAGS_TOKEN_SET, "--actor b", &flags), FLAGS_E_USAGE);
	assert_int_equal(parse_set(FLAGS_TOKEN_SET, "--rate none", &flags), FLAGS_E_USAGE);
	assert_int_equal(parse_set(FLAGS_POLICY_SET, "--conc inherit", &flags), FLAGS_E_USAGE);
	assert_int_equal(parse_set(FLAGS_POLICY_SET, "--expires 1d", &flags), FLAGS_E_USAGE);
	assert_int_equal(parse_set(FLAGS_POLICY_SET, "--policy x", &flags), FLAGS_E_USAGE);
	assert_int_equal(parse_set(FLAGS_POLICY_SET, "--conc 3", &flags), 0);
}

static void test_networks(void **state UNUSED)
{
	static const struct {
		const char *text, *stored;
	} good_ones[] = {
		{"192.0.2.0/24", "00000000000000000000ffffc0000200/120"},
		{"192.0.2.7", "00000000000000000000ffffc0000207/128"},
		{"2001:db8::/32", "20010db8000000000000000000000000/32"},
		{"::/0,0.0.0.0/0", "00000000000000000000000000000000/0 00000000000000000000ffff00000000/96"},
	};
	static const char *const wrong[] = {
		"192.0.2.1/24", "192.0.2.0/33", "2001:db8::/129", "2001:db8::1/32",       "here", "192.0.2.0/", "/8", ",",
		"192.0.2",      "10.0.0.0/-1",  "1.1.1.1,",       "10.0.0.0/8 11.0.0.0/8"};
	for (size_t i = 0; i < ARRAY_LEN(good_ones); i++) {
		char line[200];
		snprintf(line, sizeof line, "--actor a --ip %s", good_ones[i].text);
		assert_string_equal(good(line).ip_allow, good_ones[i].stored);
	}
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		struct flags flags;
		char value[60], actor[] = "--actor", name[] = "a", ip[] = "--ip";
		snprintf(value, sizeof value, "%s", wrong[i]);
		char *argv[] = {actor, name, ip, value};
		if (flags_parse(FLAGS_TOKEN_CREATE, 4, argv, &flags) != FLAGS_E_USAGE)
			fail_msg("%s is taken", wrong[i]);
	}
	char many[2000] = "--actor a --ip 2001:db8::1";
	for (int i = 0; i < 32; i++)
		strcat(many, ",2001:db8::1");
	struct flags flags;
	assert_int_equal(parse(many, &flags), FLAGS_E_USAGE);
}

static void test_lists(void **state UNUSED)
{
	assert_string_equal(good("--actor a --env LANG,LC_*").env_allow, "LANG LC_*");
	assert_string_equal(good("--actor a --env -").env_allow, "-");
	assert_string_equal(good("--actor a --shadow rate,budget").shadow, "rate budget");
	assert_string_equal(good("--actor a --egress defaults,pypi.org,*.pythonhosted.org").egress, "defaults pypi.org *.pythonhosted.org");
	assert_string_equal(good("--actor a --egress none").egress, "");
	assert_int_equal(good("--actor a --sessions 3").sessions, 3);
	assert_int_equal(good("--actor a --sessions none").sessions, 0);
	bad("--actor a --env A*B",
	    "--env \"A*B\": must be names of variables, separated by commas, 1000 bytes in all; B_* is all that begin so, - is no variable");
	bad("--actor a --scope all", "--scope \"all\": must be exec:run");
	bad("--actor a --shadow scope",
	    "--shadow \"scope\": must be of rate, actor-rate, concurrency, actor-concurrency, budget, output-budget, network, command, environment and input");
	bad("--actor a --policy a/b", "--policy \"a/b\": must be 1 to 64 of letters, digits, dot, dash and underscore");
}

static void test_help_needs_nothing_else(void **state UNUSED)
{
	struct flags flags;
	assert_int_equal(parse("--help", &flags), 0);
	assert_true(flags.help);
}

static void test_problems_name_the_flag(void **state UNUSED)
{
	bad("", "--actor is missing: whose token is it?");
	bad("--actor", "--actor needs 1 to 128 printable ASCII characters without blanks and quotes");
	bad("--actor a --rate 60", "--rate \"60\": must be COUNT/WINDOW, such as 60/1m or 1000/1d: count 1 to 1000000, window 1s to 365d");
	bad("--actor a --conc 1001", "--conc \"1001\": must be a number from 1 to 1000");
	bad("--actor a --conc 0", "--conc \"0\": must be a number from 1 to 1000");
	bad("--actor a --max-run 2d", "--max-run \"2d\": must be a time, such as 60s or 5m: 1s to 1d");
	bad("--actor a --max-run 999ms", "--max-run \"999ms\": must be a time, such as 60s or 5m: 1s to 1d");
	bad("--actor a --budget 600s", "--budget \"600s\": must be TIME/day, such as 600s/day or 2h/day: 1s to 1000000000s");
	bad("--actor a --max-out 1MB", "--max-out \"1MB\": must be bytes, such as 4096, 64KiB, 1MiB or 2GiB: 1 to 1024GiB");
	bad("--actor a --expires never", "--expires \"never\": must be a time, such as 12h or 90d: 1s to 3650d");
	bad("--actor a --actor b", "--actor is given twice");
	bad("--actor a --json=1", "--json takes no value");
	bad("--actor a --paths none", "--paths is no flag of this command; --help lists them");
	bad("ann", "ann is no flag of this command; --help lists them");
	bad("--actor \x1b[31mred", "--actor \"?[31mred\": must be 1 to 128 printable ASCII characters without blanks and quotes");
}

static void test_commands(void **state UNUSED)
{
	struct flags flags;
	static const char *const wrong[] = {"", ",", "ls,", ",ls", "ls,,cat", "ls cat"};
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		char list[20], actor[] = "--actor", name[] = "a", cmd[] = "--cmd";
		snprintf(list, sizeof list, "%s", wrong[i]);
		char *argv[] = {actor, name, cmd, list};
		assert_int_equal(flags_parse(FLAGS_TOKEN_CREATE, 4, argv, &flags), FLAGS_E_USAGE);
	}
	assert_string_equal(good("--actor a --cmd /bin/ls").cmds, "/bin/ls");
}

/* Longer than any array they are copied into: refused, not cut. */
static void test_too_long(void **state UNUSED)
{
	static const char *const flags_with_text[] = {"--actor", "--name", "--cmd"};
	for (size_t i = 0; i < ARRAY_LEN(flags_with_text); i++) {
		for (size_t len = 100; len < 1100; len++) {
			char line[1200], value[1101];
			struct flags flags;
			memset(value, 'x', len);
			value[len] = '\0';
			snprintf(line, sizeof line, "%s %s%s", flags_with_text[i], value, i ? " --actor a" : "");
			size_t max = i == 2 ? RECORD_CMDS_MAX : RECORD_TEXT_MAX;
			assert_int_equal(parse(line, &flags), len <= max ? 0 : FLAGS_E_USAGE);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_flag),
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_networks),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_help_needs_nothing_else),
		cmocka_unit_test(test_problems_name_the_flag),
		cmocka_unit_test(test_commands),
		cmocka_unit_test(test_too_long),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
