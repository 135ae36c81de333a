#include "policy/create_flags.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>

/* The words of one command line, separated by blanks. */
static int parse(const char *line, struct create_flags *flags)
{
	char text[2000], *argv[40], *rest = NULL;
	int argc = 0;
	snprintf(text, sizeof text, "%s", line);
	for (char *word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
		argv[argc++] = word;
	return create_flags_parse(argc, argv, flags);
}

static struct record good(const char *line)
{
	struct create_flags flags;
	int r = parse(line, &flags);
	if (r)
		print_error("%s: %s\n", line, flags.problem);
	assert_int_equal(r, 0);
	return flags.record;
}

static void bad(const char *line, const char *problem)
{
	struct create_flags flags;
	assert_int_equal(parse(line, &flags), CREATE_FLAGS_E_USAGE);
	assert_string_equal(flags.problem, problem);
}

static void test_every_flag(void **state UNUSED)
{
	struct create_flags flags;
	assert_int_equal(parse("--actor ann --name note --rate 60/1m --burst 5 --actor-rate 7/1h --actor-burst 2 --conc 4 --actor-conc 6 "
			       "--budget 600s/day --max-run 60s --max-out 1MiB --max-in=64KiB --cmd ls,cat --expires 90d --json",
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
	assert_string_equal(r->cmds, "ls cat");
	assert_int_equal(flags.expires_ms, UINT64_C(7776000000));
	assert_true(flags.json);
}

static void test_defaults_follow_each_other(void **state UNUSED)
{
	assert_int_equal(good("--actor a").burst, 10);
	assert_int_equal(good("--actor a --rate 5/1h").burst, 5);
	assert_int_equal(good("--actor a --rate 5/1h --burst 8").burst, 8);
	assert_int_equal(good("--actor a --actor-rate 9/1h --burst 8").aburst, 8);
	assert_int_equal(good("--actor a --budget 20s/day").max_ms, 20000);
	assert_int_equal(good("--actor a --budget 1h/day").max_ms, 300000);
	assert_int_equal(good("--actor a").bud_ms, 0);
}

static void test_help_needs_nothing_else(void **state UNUSED)
{
	struct create_flags flags;
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
	bad("--actor a --egress none", "--egress is no flag of this command; --help lists them");
	bad("ann", "ann is no flag of this command; --help lists them");
	bad("--actor a --actor-burst 3", "--actor-burst needs --actor-rate");
	bad("--actor a --rate 1/365d --burst 2", "--burst is too large for --rate: the burst must come back within 365d");
	bad("--actor a --budget 10s/day --max-run 20s", "--max-run is longer than --budget allows in a day");
	bad("--actor \x1b[31mred", "--actor \"?[31mred\": must be 1 to 128 printable ASCII characters without blanks and quotes");
}

static void test_commands(void **state UNUSED)
{
	struct create_flags flags;
	static const char *const wrong[] = {"", ",", "ls,", ",ls", "ls,,cat", "ls cat"};
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		char list[20], actor[] = "--actor", name[] = "a", cmd[] = "--cmd";
		snprintf(list, sizeof list, "%s", wrong[i]);
		char *argv[] = {actor, name, cmd, list};
		assert_int_equal(create_flags_parse(4, argv, &flags), CREATE_FLAGS_E_USAGE);
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
			struct create_flags flags;
			memset(value, 'x', len);
			value[len] = '\0';
			snprintf(line, sizeof line, "%s %s%s", flags_with_text[i], value, i ? " --actor a" : "");
			size_t max = i == 2 ? RECORD_CMDS_MAX : RECORD_TEXT_MAX;
			assert_int_equal(parse(line, &flags), len <= max ? 0 : CREATE_FLAGS_E_USAGE);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_flag),
		cmocka_unit_test(test_defaults_follow_each_other),
		cmocka_unit_test(test_help_needs_nothing_else),
		cmocka_unit_test(test_problems_name_the_flag),
		cmocka_unit_test(test_commands),
		cmocka_unit_test(test_too_long),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
