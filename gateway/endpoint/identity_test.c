#include "gateway/endpoint/identity.h"

#include "policy/token.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define RULES                                                                                \
	"[{\"policy\": \"staff\", \"allow\": {\"id\": [\"root\", 7], \"role\": \"admin\"}}," \
	" {\"policy\": \"all\", \"allow\": {\"team\": \"*\", \"on\": true}}]"

static struct secret pepper;

static int make_pepper(void **state UNUSED)
{
	return secret_init(&pepper, SLICE("pepper of the identity test, 32+"));
}

static int drop_pepper(void **state UNUSED)
{
	secret_deinit(&pepper);
	return 0;
}

static struct identity_rules make(const char *text)
{
	struct identity_rules rules;
	char problem[IDENTITY_PROBLEM];
	assert_int_equal(identity_init(&rules, &(struct identity_options){.rules = text, .action = "run-it", .pepper = &pepper}, problem),
			 0);
	return rules;
}

static struct identity read_with(const char *rules_text, unsigned status, const char *body)
{
	struct identity_rules rules = make(rules_text);
	struct identity identity;
	assert_int_equal(identity_read(&rules, status, slice_str(body), &identity), 0);
	identity_deinit(&rules);
	return identity;
}

static enum identity_result result_of(const char *body)
{
	return read_with(RULES, 200, body).result;
}

static void test_the_first_rule_that_matches(void **state UNUSED)
{
	static const struct {
		const char *actor, *policy;
	} known[] = {
		{"{\"id\":\"root\"}", "staff"},
		{"{\"id\":7}", "staff"},
		{"{\"id\":\"ann\",\"role\":\"admin\",\"team\":1}", "staff"},
		{"{\"id\":\"ann\",\"role\":[\"x\",\"admin\"]}", "staff"},
		{"{\"id\":\"ann\",\"team\":null}", "all"},
		{"{\"id\":\"ann\",\"on\":true}", "all"},
	};
	static const char *const denied[] = {"{\"id\":\"ann\"}",
					     "{\"id\":\"7\"}",
					     "{\"id\":\"Root\"}",
					     "{\"id\":\"ann\",\"role\":[[\"admin\"]]}",
					     "{\"id\":\"ann\",\"role\":{\"admin\":1}}",
					     "{\"id\":\"ann\",\"on\":1}",
					     "{}"};
	char text[200];
	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		snprintf(text, sizeof text, "{\"ok\":true,\"actor\":%s}", known[i].actor);
		struct identity identity = read_with(RULES, 200, text);
		assert_int_equal(identity.result, IDENTITY_KNOWN);
		assert_string_equal(identity.who.policy, known[i].policy);
	}
	for (size_t i = 0; i < ARRAY_LEN(denied); i++) {
		snprintf(text, sizeof text, "{\"actor\":%s}", denied[i]);
		assert_int_equal(result_of(text), IDENTITY_DENIED);
	}
	assert_string_equal(read_with("[{\"policy\":\"p\",\"allow\":true}]", 200, "{\"actor\":{\"id\":\"x\"}}").who.policy, "p");
}

static void test_restrictions(void **state UNUSED)
{
	assert_int_equal(result_of("{\"actor\":{\"id\":\"root\",\"_r\":{\"a\":[\"vi\",\"run-it\"]}}}"), IDENTITY_KNOWN);
	static const char *const restricted[] = {"{}",
						 "null",
						 "[]",
						 "\"run-it\"",
						 "{\"a\":[]}",
						 "{\"a\":\"run-it\"}",
						 "{\"a\":[\"run-it2\",\"Run-it\",\"*\",1]}",
						 "{\"d\":{\"db\":[\"run-it\"]}}"};
	char text[200];
	for (size_t i = 0; i < ARRAY_LEN(restricted); i++) {
		snprintf(text, sizeof text, "{\"actor\":{\"id\":\"root\",\"_r\":%s}}", restricted[i]);
		assert_int_equal(result_of(text), IDENTITY_DENIED);
	}
}

static void test_what_says_nothing(void **state UNUSED)
{
	static const char *const failed[] = {"",
					     "x",
					     "[]",
					     "null",
					     "{}",
					     "{\"actor\":\"root\"}",
					     "{\"actor\":[{\"id\":\"root\"}]}",
					     "{\"actor\":true}",
					     "{\"ok\":false,\"actor\":{\"id\":\"root\"}}",
					     "{\"ok\":1,\"actor\":{\"id\":\"root\"}}",
					     "{\"actor\":{\"id\":\"ann\",\"id\":\"root\"}}",
					     "{\"actor\":{\"id\":\"root\"}}x",
					     "{\"actor\":{\"id\":\"root\"}"};
	for (size_t i = 0; i < ARRAY_LEN(failed); i++)
		assert_int_equal(result_of(failed[i]), IDENTITY_FAILED);
	assert_int_equal(result_of("{\"ok\":true,\"actor\":null}"), IDENTITY_ANONYMOUS);
}

static void test_statuses(void **state UNUSED)
{
	const char *root = "{\"ok\":true,\"actor\":{\"id\":\"root\"}}";
	assert_int_equal(read_with(RULES, 200, root).result, IDENTITY_KNOWN);
	assert_int_equal(read_with(RULES, 401, root).result, IDENTITY_INVALID);
	static const unsigned denied[] = {301, 302, 307, 403}, failed[] = {201, 204, 206, 404, 429, 500, 503};
	for (size_t i = 0; i < ARRAY_LEN(denied); i++)
		assert_int_equal(read_with(RULES, denied[i], root).result, IDENTITY_DENIED);
	for (size_t i = 0; i < ARRAY_LEN(failed); i++)
		assert_int_equal(read_with(RULES, failed[i], root).result, IDENTITY_FAILED);
}

static struct identity named(const char *id)
{
	char text[400];
	snprintf(text, sizeof text, "{\"actor\":{\"id\":%s,\"role\":\"admin\"}}", id);
	return read_with(RULES, 200, text);
}

static void test_names(void **state UNUSED)
{
	static const struct {
		const char *id, *actor;
	} names[] = {{"\"root\"", "root"},
		     {"12", "12"},
		     {"\"a b\"", "a%20b"},
		     {"\"a%20b\"", "a%2520b"},
		     {"\"\\u00e9\\\\\\\"\"", "%C3%A9%5C%22"},
		     {"\"ann@example.org\"", "ann@example.org"}};
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		struct identity identity = named(names[i].id);
		assert_int_equal(identity.result, IDENTITY_KNOWN);
		assert_string_equal(identity.who.actor, names[i].actor);
		assert_true(token_kid_or_identity(slice_str(identity.who.kid)));
		assert_false(token_kid_is_valid(slice_str(identity.who.kid)));
	}
	assert_string_equal(named("\"12\"").who.actor, "12");
	assert_string_not_equal(named("\"12\"").who.kid, named("12").who.kid);
	assert_string_equal(named("\"root\"").who.kid, named("\"root\"").who.kid);
	static const char *const unusable[] = {"\"\"", "null", "true", "1.5", "[\"root\"]", "{}"};
	for (size_t i = 0; i < ARRAY_LEN(unusable); i++)
		assert_int_equal(named(unusable[i]).result, IDENTITY_DENIED);
	char id[140];
	memset(id, 'x', sizeof id);
	id[0] = id[129] = '"';
	id[130] = '\0';
	assert_int_equal(named(id).result, IDENTITY_KNOWN);
	id[129] = 'x';
	id[130] = '"';
	id[131] = '\0';
	assert_int_equal(named(id).result, IDENTITY_DENIED);
}

static void test_rules_that_are_refused(void **state UNUSED)
{
	static const char *const wrong[] = {"x",
					    "{}",
					    "[]",
					    "[1]",
					    "[{}]",
					    "[{\"policy\":\"p\"}]",
					    "[{\"allow\":true}]",
					    "[{\"policy\":\"\",\"allow\":true}]",
					    "[{\"policy\":\"a b\",\"allow\":true}]",
					    "[{\"policy\":1,\"allow\":true}]",
					    "[{\"policy\":\"p\",\"allow\":false}]",
					    "[{\"policy\":\"p\",\"allow\":null}]",
					    "[{\"policy\":\"p\",\"allow\":{}}]",
					    "[{\"policy\":\"p\",\"allow\":\"*\"}]",
					    "[{\"policy\":\"p\",\"allow\":{\"id\":null}}]",
					    "[{\"policy\":\"p\",\"allow\":{\"id\":{}}}]",
					    "[{\"policy\":\"p\",\"allow\":{\"id\":[[]]}}]",
					    "[{\"policy\":\"p\",\"allow\":true,\"deny\":{}}]",
					    "[{\"policy\":\"p\",\"allow\":true},{\"policy\":\"p\"}]",
					    "[{\"policy\":\"p\",\"policy\":\"q\",\"allow\":true}]"};
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		struct identity_rules rules;
		char problem[IDENTITY_PROBLEM] = "";
		assert_int_equal(identity_init(&rules, &(struct identity_options){.rules = wrong[i]}, problem), -EINVAL);
		assert_true(problem[0]);
	}
}

static void test_without_rules_nobody_may(void **state UNUSED)
{
	assert_int_equal(read_with("", 200, "{\"actor\":{\"id\":\"root\"}}").result, IDENTITY_DENIED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_first_rule_that_matches),
		cmocka_unit_test(test_restrictions),
		cmocka_unit_test(test_what_says_nothing),
		cmocka_unit_test(test_statuses),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_rules_that_are_refused),
		cmocka_unit_test(test_without_rules_nobody_may),
	};
	return cmocka_run_group_tests(tests, make_pepper, drop_pepper);
}
