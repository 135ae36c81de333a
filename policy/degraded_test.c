#include "policy/degraded.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>

#define NOW    UINT64_C(1000000)
#define KIND   "kind"
#define SECRET "secret"
#define BUDGET 120000

/* 60 a minute and a burst of 8, on one gateway: 15 a minute and 2 at once. */
static struct admission_answer granted(const char *actor)
{
	struct admission_answer answer = {.code = ADMISSION_GRANTED,
					  .log_reason = "granted",
					  .policy = "p",
					  .policy_version = 3,
					  .lease = {.granted_ms = 10000},
					  .output_bytes = 4096,
					  .max_input_bytes = 100,
					  .caps = {.processes = 64, .file_bytes = 4, .memory_bytes = 5},
					  .violated = "[]",
					  .state = {.rate = {.count = 60, .per_ms = 60000, .burst = 8}}};
	snprintf(answer.actor, sizeof answer.actor, "%s", actor);
	return answer;
}

static int make(void **state)
{
	*state = degraded_new(&(struct degraded_options){.trust_ms = 60000, .budget_ms = BUDGET, .gateways = 1});
	return *state ? 0 : -1;
}

static int destroy(void **state)
{
	degraded_free(*state);
	return 0;
}

static const struct admission_request wish = {.want_ms = 5000, .input_bytes = 10, .most_output_bytes = 1000};

static const char *ask(struct degraded *degraded, const char *kid, const char *kind, uint64_t now_ms)
{
	struct degraded_grant grant;
	return degraded_ask(degraded, kid, kind, &wish, now_ms, &grant);
}

static void learn_at(struct degraded *degraded, const char *kid, uint64_t asked_ms)
{
	struct admission_answer answer = granted("ann");
	degraded_learn(degraded, kid, SECRET, KIND, &answer, asked_ms);
}

static void learn(struct degraded *degraded, const char *kid)
{
	learn_at(degraded, kid, NOW);
}

static void refuse(struct degraded *degraded, const char *kid, const char *secret, const char *reason, uint64_t asked_ms)
{
	const struct admission_answer answer = {.code = ADMISSION_INVALID_TOKEN, .log_reason = reason};
	degraded_learn(degraded, kid, secret, "another", &answer, asked_ms);
}

static void test_grant(void **state)
{
	struct degraded_grant grant;
	learn(*state, "A");
	assert_string_equal(degraded_ask(*state, "A", KIND, &wish, NOW + 1, &grant), "granted");
	assert_string_equal(grant.actor, "ann");
	assert_string_equal(grant.policy, "p");
	assert_int_equal(grant.policy_version, 3);
	assert_int_equal(grant.granted_ms, 5000);
	assert_int_equal(grant.output_bytes, 1000);
	assert_int_equal(grant.max_input_bytes, 100);
	const struct admission_caps caps = granted("ann").caps;
	assert_memory_equal(&grant.caps, &caps, sizeof caps);
	assert_int_equal(degraded_unbooked_ms(*state), 5000);
	degraded_end(*state, "A", 5000, 700);
	assert_int_equal(degraded_unbooked_ms(*state), 700);
	degraded_booked(*state, "A", 700, NOW + 2);
	assert_int_equal(degraded_unbooked_ms(*state), 0);
	assert_string_equal(ask(*state, "A", KIND, NOW + 20000), "unknown"); /* its budget may be used up */
}

static void test_only_what_was_granted(void **state)
{
	struct admission_request more = wish;
	struct degraded_grant grant;
	learn(*state, "A");
	assert_string_equal(ask(*state, "B", KIND, NOW), "unknown");
	assert_string_equal(ask(*state, "A", "another", NOW), "unknown");
	more.input_bytes = 101;
	assert_string_equal(degraded_ask(*state, "A", KIND, &more, NOW, &grant), "unknown");
	more = wish;
	more.want_ms = 300000;
	more.most_output_bytes = 1 << 20;
	assert_string_equal(degraded_ask(*state, "A", KIND, &more, NOW, &grant), "granted");
	assert_int_equal(grant.granted_ms, 10000);
	assert_int_equal(grant.output_bytes, 4096);
}

static void test_never_longer_than_a_lease_lasts(void **state)
{
	struct admission_answer answer = granted("ann");
	struct admission_request more = wish;
	struct degraded_grant grant;
	answer.lease.granted_ms = more.want_ms = 300000;
	degraded_learn(*state, "A", SECRET, KIND, &answer, NOW);
	assert_string_equal(degraded_ask(*state, "A", KIND, &more, NOW, &grant), "granted");
	assert_int_equal(grant.granted_ms, DEGRADED_RUN_MS);
}

static void test_trust_ends(void **state)
{
	struct admission_answer answer = granted("ann");
	learn(*state, "A");
	assert_string_equal(ask(*state, "A", KIND, NOW + 60000), "unknown");
	assert_string_equal(ask(*state, "A", KIND, NOW - 1), "unknown"); /* a clock that is not ours */
	answer.valid_ms = 1000;
	degraded_learn(*state, "B", SECRET, KIND, &answer, NOW);
	assert_string_equal(ask(*state, "B", KIND, NOW + 1000), "unknown"); /* expired */
	assert_string_equal(ask(*state, "A", KIND, NOW + 59999), "granted");
	degraded_end(*state, "A", 5000, 0);
	assert_string_equal(ask(*state, "B", KIND, NOW + 999), "granted");
}

static void test_one_at_a_time_and_a_quarter_of_the_rate(void **state)
{
	learn(*state, "A");
	assert_string_equal(ask(*state, "A", KIND, NOW), "granted");
	assert_string_equal(ask(*state, "A", KIND, NOW), "concurrency");
	degraded_end(*state, "A", 5000, 0);
	assert_string_equal(ask(*state, "A", KIND, NOW), "granted");
	degraded_end(*state, "A", 5000, 0);
	assert_string_equal(ask(*state, "A", KIND, NOW), "rate");
	assert_string_equal(ask(*state, "A", KIND, NOW + 3999), "rate");
	assert_string_equal(ask(*state, "A", KIND, NOW + 4001), "granted");
}

static void test_limits_of_an_actor_are_of_all_its_tokens(void **state)
{
	struct admission_answer answer = granted("ann");
	answer.state.actor_rate = (struct fields_rate){.count = 30, .per_ms = 60000, .burst = 4};
	degraded_learn(*state, "A", SECRET, KIND, &answer, NOW);
	degraded_learn(*state, "B", SECRET, KIND, &answer, NOW);
	assert_string_equal(ask(*state, "A", KIND, NOW), "granted");
	assert_string_equal(ask(*state, "B", KIND, NOW), "concurrency");
	degraded_end(*state, "A", 5000, 0);
	assert_string_equal(ask(*state, "B", KIND, NOW), "rate");
	assert_string_equal(ask(*state, "B", KIND, NOW + 8001), "granted"); /* 30 a minute: one in 2 s, a quarter of that */

	answer = granted("bob");
	degraded_learn(*state, "C", SECRET, KIND, &answer, NOW);
	degraded_learn(*state, "D", SECRET, KIND, &answer, NOW);
	assert_string_equal(ask(*state, "C", KIND, NOW), "granted");
	assert_string_equal(ask(*state, "D", KIND, NOW), "granted"); /* this one has none */
}

static void test_never_more_unbooked_than_the_cap(void **state)
{
	char kid[16];
	for (int i = 0; i < BUDGET / 5000; i++) {
		snprintf(kid, sizeof kid, "T%d", i);
		learn(*state, kid);
		assert_string_equal(ask(*state, kid, KIND, NOW), "granted");
		degraded_end(*state, kid, 5000, 9000); /* killing took longer: not counted */
	}
	assert_int_equal(degraded_unbooked_ms(*state), BUDGET);
	learn(*state, "A");
	assert_string_equal(ask(*state, "A", KIND, NOW), "budget");
	degraded_booked(*state, "T0", 5000, NOW);
	assert_string_equal(ask(*state, "A", KIND, NOW), "granted");
}

static const char *after(struct degraded *degraded, enum admission_code code, const char *reason, const char *violated, const char *secret)
{
	static uint64_t now = NOW;
	struct admission_answer answer = {.code = code, .log_reason = reason};
	snprintf(answer.violated, sizeof answer.violated, "%s", violated);
	learn_at(degraded, "A", now += 10);
	degraded_learn(degraded, "A", secret, "another", &answer, now + 1);
	const char *result = ask(degraded, "A", KIND, now + 2);
	if (strcmp(result, "granted") == 0)
		degraded_end(degraded, "A", 5000, 0);
	return result;
}

static void test_what_speaks_against_a_token(void **state)
{
	static const char *const reasons[] = {"unknown", "revoked", "suspended", "expired", "not-yet-valid", "broken-record"};
	static const enum admission_code codes[] = {ADMISSION_INSUFFICIENT_SCOPE, ADMISSION_NETWORK_DENIED, ADMISSION_COMMAND_DENIED,
						    ADMISSION_VARIABLE_DENIED, ADMISSION_INPUT_TOO_LARGE};
	for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
		assert_string_equal(after(*state, ADMISSION_INVALID_TOKEN, reasons[i], "[]", SECRET), "unknown");
	for (size_t i = 0; i < ARRAY_LEN(codes); i++)
		assert_string_equal(after(*state, codes[i], "x", "[]", SECRET), "unknown");
	assert_string_equal(after(*state, ADMISSION_QUOTA, "quota", "[\"rate\",\"budget\"]", SECRET), "unknown");
	assert_string_equal(after(*state, ADMISSION_QUOTA, "quota", "[\"output-budget\"]", SECRET), "unknown");
	assert_string_equal(after(*state, ADMISSION_INVALID_TOKEN, "bad-mac", "[]", SECRET), "unknown"); /* its secret was rotated */
}

static void test_what_does_not(void **state)
{
	/* Somebody's guess at its secret */
	assert_string_equal(after(*state, ADMISSION_INVALID_TOKEN, "bad-mac", "[]", "guess"), "granted");
	assert_string_equal(after(*state, ADMISSION_QUOTA, "quota", "[\"rate\"]", SECRET), "granted");
}

static void test_an_older_grant_is_not_believed(void **state)
{
	learn(*state, "A");
	refuse(*state, "A", SECRET, "revoked", NOW + 5);
	learn_at(*state, "A", NOW + 5); /* its answer was late */
	assert_string_equal(ask(*state, "A", KIND, NOW + 10), "unknown");
	learn_at(*state, "A", NOW + 6);
	assert_string_equal(ask(*state, "A", KIND, NOW + 10), "granted");
	degraded_end(*state, "A", 5000, 700);
	degraded_booked(*state, "A", 700, NOW + 20);
	learn_at(*state, "A", NOW + 19);
	assert_string_equal(ask(*state, "A", KIND, NOW + 10000), "unknown");
	learn_at(*state, "A", NOW + 21);
	assert_string_equal(ask(*state, "A", KIND, NOW + 10000), "granted");
}

static void test_a_rotated_secret_is_known_by_any_command(void **state)
{
	struct admission_answer answer = granted("ann");
	degraded_learn(*state, "A", "old", "kind of old", &answer, NOW);
	degraded_learn(*state, "A", "new", "kind of new", &answer, NOW);
	refuse(*state, "A", "guess", "bad-mac", NOW + 1);
	assert_string_equal(ask(*state, "A", "kind of old", NOW + 2), "granted");
	degraded_end(*state, "A", 5000, 0);
	refuse(*state, "A", "old", "bad-mac", NOW + 3);
	assert_string_equal(ask(*state, "A", "kind of old", NOW + 4), "unknown");
	assert_string_equal(ask(*state, "A", "kind of new", NOW + 4), "granted");
	degraded_learn(*state, "A", "old", "kind of old", &answer, NOW + 2); /* its answer was late */
	assert_string_equal(ask(*state, "A", "kind of old", NOW + 4), "unknown");
}

static void test_other_rules_forget_what_was_granted(void **state)
{
	struct admission_answer answer = granted("ann");
	learn(*state, "A");
	answer.policy_version++;
	degraded_learn(*state, "A", SECRET, "narrow", &answer, NOW + 10);
	assert_string_equal(ask(*state, "A", KIND, NOW + 20), "unknown");
	learn_at(*state, "A", NOW + 9); /* by the rules before */
	assert_string_equal(ask(*state, "A", KIND, NOW + 20), "unknown");
	snprintf(answer.policy, sizeof answer.policy, "another");
	degraded_learn(*state, "A", SECRET, KIND, &answer, NOW + 30);
	assert_string_equal(ask(*state, "A", "narrow", NOW + 40), "unknown");
	assert_string_equal(ask(*state, "A", KIND, NOW + 40), "granted");
}

static void test_a_slow_token_does_not_hold_its_actors_others(void **state)
{
	struct admission_answer slow = granted("ann"), quick = granted("ann");
	slow.state.actor_rate = quick.state.actor_rate = (struct fields_rate){.count = 30, .per_ms = 60000, .burst = 8};
	slow.state.rate = (struct fields_rate){.count = 1, .per_ms = 86400000, .burst = 1};
	degraded_learn(*state, "slow", SECRET, KIND, &slow, NOW);
	degraded_learn(*state, "quick", SECRET, KIND, &quick, NOW);
	assert_string_equal(ask(*state, "slow", KIND, NOW), "granted");
	degraded_end(*state, "slow", 5000, 0);
	assert_string_equal(ask(*state, "quick", KIND, NOW), "granted");
	degraded_end(*state, "quick", 5000, 0);
	assert_string_equal(ask(*state, "quick", KIND, NOW), "rate"); /* two of the actor at once */
	assert_string_equal(ask(*state, "slow", KIND, NOW + 20000), "rate");
	assert_string_equal(ask(*state, "quick", KIND, NOW + 20000), "granted");
}

static void test_a_token_leaves_half_to_the_others(void **state)
{
	struct admission_answer answer = granted("ann");
	answer.state.rate = (struct fields_rate){.count = 6000, .per_ms = 60000, .burst = 100};
	degraded_learn(*state, "A", SECRET, KIND, &answer, NOW);
	for (int i = 0; i < BUDGET / 2 / 5000; i++) {
		assert_string_equal(ask(*state, "A", KIND, NOW), "granted");
		degraded_end(*state, "A", 5000, 5000);
	}
	assert_string_equal(ask(*state, "A", KIND, NOW), "budget");
	learn(*state, "B");
	assert_string_equal(ask(*state, "B", KIND, NOW), "granted");
	degraded_booked(*state, "A", 5000, NOW);
	degraded_learn(*state, "A", SECRET, KIND, &answer, NOW + 1);
	assert_string_equal(ask(*state, "A", KIND, NOW + 1), "granted");
}

static void test_one_that_stays_does_not_keep_others_out(void **state)
{
	char name[24];
	learn(*state, "A");
	assert_string_equal(ask(*state, "A", KIND, NOW), "granted");
	for (int i = 1; i < DEGRADED_TOKENS; i++) {
		snprintf(name, sizeof name, "T%d", i);
		learn(*state, name);
	}
	learn(*state, "one more");
	assert_string_equal(ask(*state, "one more", KIND, NOW), "granted");
	assert_string_equal(ask(*state, "T1", KIND, NOW), "unknown");
	degraded_end(*state, "A", 5000, 700);
	learn_at(*state, "A", NOW + 1);
	for (int i = 1; i < DEGRADED_TOKENS; i++) {
		snprintf(name, sizeof name, "U%d", i);
		learn_at(*state, name, NOW + 50000);
	}
	assert_string_equal(ask(*state, "A", KIND, NOW + 50000), "granted"); /* what it used is not booked */
}

static void test_tables_are_bounded(void **state)
{
	struct admission_answer answer = granted("ann");
	char name[24];
	for (int i = 0; i <= DEGRADED_KINDS; i++) {
		snprintf(name, sizeof name, "kind%d", i);
		degraded_learn(*state, "A", SECRET, name, &answer, NOW + (uint64_t)i);
	}
	assert_string_equal(ask(*state, "A", "kind0", NOW + 100), "unknown");
	assert_string_equal(ask(*state, "A", "kind1", NOW + 100), "granted");
	for (int i = 1; i < DEGRADED_TOKENS; i++) {
		snprintf(name, sizeof name, "T%d", i);
		learn(*state, name);
	}
	degraded_end(*state, "A", 5000, 0);
	degraded_learn(*state, "one more", SECRET, KIND, &answer, NOW + 30000);
	assert_string_equal(ask(*state, "one more", KIND, NOW + 30000), "granted");
	assert_string_equal(ask(*state, "A", "kind1", NOW + 30000), "unknown");
}

static void test_digest(void **state UNUSED)
{
	char a[SHA256_HEX + 1], b[SHA256_HEX + 1];
	assert_int_equal(degraded_digest((struct slice[]){SLICE("ab"), SLICE("c")}, 2, a), 0);
	assert_int_equal(degraded_digest((struct slice[]){SLICE("a"), SLICE("bc")}, 2, b), 0);
	assert_string_not_equal(a, b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_grant, make, destroy),
		cmocka_unit_test_setup_teardown(test_only_what_was_granted, make, destroy),
		cmocka_unit_test_setup_teardown(test_never_longer_than_a_lease_lasts, make, destroy),
		cmocka_unit_test_setup_teardown(test_trust_ends, make, destroy),
		cmocka_unit_test_setup_teardown(test_one_at_a_time_and_a_quarter_of_the_rate, make, destroy),
		cmocka_unit_test_setup_teardown(test_limits_of_an_actor_are_of_all_its_tokens, make, destroy),
		cmocka_unit_test_setup_teardown(test_never_more_unbooked_than_the_cap, make, destroy),
		cmocka_unit_test_setup_teardown(test_what_speaks_against_a_token, make, destroy),
		cmocka_unit_test_setup_teardown(test_what_does_not, make, destroy),
		cmocka_unit_test_setup_teardown(test_an_older_grant_is_not_believed, make, destroy),
		cmocka_unit_test_setup_teardown(test_a_rotated_secret_is_known_by_any_command, make, destroy),
		cmocka_unit_test_setup_teardown(test_other_rules_forget_what_was_granted, make, destroy),
		cmocka_unit_test_setup_teardown(test_a_slow_token_does_not_hold_its_actors_others, make, destroy),
		cmocka_unit_test_setup_teardown(test_a_token_leaves_half_to_the_others, make, destroy),
		cmocka_unit_test_setup_teardown(test_one_that_stays_does_not_keep_others_out, make, destroy),
		cmocka_unit_test_setup_teardown(test_tables_are_bounded, make, destroy),
		cmocka_unit_test(test_digest),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
