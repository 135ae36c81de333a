#include "gateway/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* What a test sets is gone afterwards: the environment is the process'. */
static const char *const names[] = {"SPRITEGATE_SPRITES_TOKEN",
				    "SPRITEGATE_PEPPER",
				    "SPRITEGATE_POOL_HOT",
				    "SPRITEGATE_MAX_HEAD_BYTES",
				    "SPRITEGATE_NOPE",
				    "SPRITEGATE_REDIS_URL",
				    "SPRITEGATE_LISTEN",
				    "SPRITEGATE_POOL_WARM",
				    "SPRITEGATE_POOL_MAX",
				    "SPRITEGATE_EXEC_TIMEOUT_SECONDS",
				    "SPRITEGATE_EXEC_MAX_TIMEOUT_SECONDS",
				    "SPRITEGATE_POOL_NAME",
				    "SPRITEGATE_POOL_SHARED",
				    "FLY_APP_NAME"};

static int clean(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		unsetenv(names[i]);
	unsetenv("FLY_MACHINE_ID");
	return 0;
}

static void set_required(void)
{
	setenv("SPRITEGATE_SPRITES_TOKEN", "token", 1);
	setenv("SPRITEGATE_PEPPER", "0123456789abcdef0123456789abcdef", 1);
}

static int load(struct config *config, const char *file, enum config_use use, const char *fault)
{
	CLEANUP(buf_deinit) struct buf faults = BUF_MAX(4096);
	config_init(config);
	int r = config_load(config, file, use, &faults);
	if (fault && !memmem(faults.data ? faults.data : "", faults.len, fault, strlen(fault)))
		fail_msg("\"%s\" is not in: %.*s", fault, SLICE_FMT(buf_peek(&faults)));
	if (r < 0)
		config_deinit(config);
	return r;
}

static void test_defaults(void **state UNUSED)
{
	struct config config;
	set_required();
	setenv("FLY_MACHINE_ID", "e2865", 1);
	assert_int_equal(load(&config, NULL, CONFIG_SERVE, NULL), 0);
	assert_string_equal(config.listen, "[::]:8080");
	assert_string_equal(config.instance, "e2865");
	assert_int_equal(config.max_head_bytes, 32 * 1024);
	assert_int_equal(config.exec_max_output_bytes, 64 * 1024 * 1024);
	assert_int_equal(config.pool_hot, 2);
	assert_int_equal(config.pool_warm, 0);
	assert_true(secret_equal(&config.sprites_token, SLICE("token")));
	config_deinit(&config);
}

static void test_refusals(void **state UNUSED)
{
	struct config config;
	assert_int_equal(load(&config, NULL, CONFIG_SERVE, "sprites_token: required, set SPRITEGATE_SPRITES_TOKEN"), -EINVAL);
	set_required();
	static const struct {
		const char *name, *value, *fault;
	} rows[] = {
		{"SPRITEGATE_POOL_HOT", "two", "pool_hot: \"two\" is not a whole number or `auto`"},
		{"SPRITEGATE_POOL_MAX", "auto", "pool_max: \"auto\" is not a whole number"},
		{"SPRITEGATE_POOL_WARM", "11", "pool_warm: 11 is above pool_max (10)"},
		{"SPRITEGATE_POOL_HOT", "101", "pool_hot: 101 is outside 0 to 100"},
		{"SPRITEGATE_POOL_HOT", "11", "pool_hot: 11 is above pool_max (10)"},
		{"SPRITEGATE_EXEC_TIMEOUT_SECONDS", "301", "exec_timeout_seconds: 301 is above exec_max_timeout_seconds (300)"},
		{"SPRITEGATE_EXEC_TIMEOUT_SECONDS", "0", "exec_timeout_seconds: 0 is outside 0.001 to 3600"},
		{"SPRITEGATE_EXEC_TIMEOUT_SECONDS", "3600.001", "exec_timeout_seconds: 3600.001 is outside 0.001 to 3600"},
		{"SPRITEGATE_EXEC_TIMEOUT_SECONDS", "18446744073709552", "is not a number of seconds"},
		{"SPRITEGATE_MAX_HEAD_BYTES", "1MiB", "max_head_bytes: 1048576 is outside 4096 to 131072"},
		{"SPRITEGATE_MAX_HEAD_BYTES", "32kb", "is not a number of bytes"},
		{"SPRITEGATE_PEPPER", "short", "pepper: 5 characters, allowed are 32 to 1024"},
		{"SPRITEGATE_NOPE", "1", "unknown setting \"NOPE\""},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		clean(NULL);
		set_required();
		setenv(rows[i].name, rows[i].value, 1);
		assert_int_equal(load(&config, NULL, CONFIG_SERVE, rows[i].fault), -EINVAL);
	}
}

static void test_pool_name(void **state UNUSED)
{
	struct config config;
	set_required();
	setenv("FLY_APP_NAME", "an-application-with-a-name-of-more-than-forty-characters", 1);
	assert_int_equal(load(&config, NULL, CONFIG_SERVE, NULL), 0);
	assert_string_equal(config.pool_name, "an-application-with-a-name-of-more-than-");
	config_deinit(&config);
	unsetenv("FLY_APP_NAME");
	setenv("SPRITEGATE_POOL_NAME", "a b", 1);
	setenv("SPRITEGATE_POOL_SHARED", "1", 1);
	assert_int_equal(load(&config, NULL, CONFIG_SERVE, "pool_name: \"a b\" has other characters"), -EINVAL);
}

static void test_seconds(void **state UNUSED)
{
	struct config config;
	set_required();
	static const struct {
		const char *text;
		uint64_t ms;
	} good[] = {{"0.5", 500}, {"0.05", 50}, {"0.001", 1}, {"2.125", 2125}, {"7", 7000}, {"7.0", 7000}, {"300.000", 300000}};
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		setenv("SPRITEGATE_EXEC_TIMEOUT_SECONDS", good[i].text, 1);
		assert_int_equal(load(&config, NULL, CONFIG_SERVE, NULL), 0);
		assert_int_equal(config.exec_timeout_ms, good[i].ms);
		config_deinit(&config);
	}
	static const char *const bad[] = {"", ".", ".5", "5.", "0.0005", "1e1", "+1", "-1", "1,5", "1.5.0", "1. 5", "0x1", "1.-5"};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		setenv("SPRITEGATE_EXEC_TIMEOUT_SECONDS", bad[i], 1);
		assert_int_equal(load(&config, NULL, CONFIG_SERVE, "is not a number of seconds"), -EINVAL);
	}
}

static void expect_printed(const struct config *config, const char *line)
{
	CLEANUP(buf_deinit) struct buf text = BUF_MAX(16384);
	assert_int_equal(config_print(config, &text), 0);
	if (!memmem(text.data, text.len, line, strlen(line)))
		fail_msg("\"%s\" is not in: %.*s", line, SLICE_FMT(buf_peek(&text)));
}

static void test_a_default_bends_to_a_ceiling(void **state UNUSED)
{
	struct config config;
	set_required();
	setenv("SPRITEGATE_POOL_MAX", "1", 1);
	setenv("SPRITEGATE_EXEC_MAX_TIMEOUT_SECONDS", "2.5", 1);
	assert_int_equal(load(&config, NULL, CONFIG_SERVE, NULL), 0);
	assert_int_equal(config.pool_hot, 1);
	assert_int_equal(config.exec_timeout_ms, 2500);
	expect_printed(&config, "\npool_hot = 1\n");
	expect_printed(&config, "\nexec_timeout_seconds = 2.5\n");
	config_deinit(&config);
	/* What was set stays as it was set, even where it is the default. */
	setenv("SPRITEGATE_POOL_HOT", "2", 1);
	setenv("SPRITEGATE_EXEC_TIMEOUT_SECONDS", "30", 1);
	assert_int_equal(load(&config, NULL, CONFIG_SERVE, "pool_hot: 2 is above pool_max (1)"), -EINVAL);
	assert_int_equal(load(&config, NULL, CONFIG_SERVE, "exec_timeout_seconds: 30 is above exec_max_timeout_seconds (2.5)"), -EINVAL);
	setenv("SPRITEGATE_POOL_HOT", "auto", 1);
	unsetenv("SPRITEGATE_EXEC_TIMEOUT_SECONDS");
	assert_int_equal(load(&config, NULL, CONFIG_SERVE, NULL), 0);
	assert_true(config.pool_hot == CONFIG_AUTO);
	config_deinit(&config);
}

static void test_token_commands_need_less(void **state UNUSED)
{
	struct config config;
	setenv("SPRITEGATE_PEPPER", "0123456789abcdef0123456789abcdef", 1);
	assert_int_equal(load(&config, NULL, CONFIG_TOKEN, NULL), 0);
	config_deinit(&config);
}

static void test_file(void **state UNUSED)
{
	char path[] = "/tmp/spritegate-config-XXXXXX";
	int fd = mkstemp(path);
	FILE *file = fdopen(fd, "w");
	struct config config;
	fputs("# comment\n\npool_hot = 3\npool_warm = auto\n listen = 127.0.0.1:1\n", file);
	fflush(file);
	set_required();
	setenv("SPRITEGATE_LISTEN", "127.0.0.1:2", 1);
	assert_int_equal(load(&config, path, CONFIG_SERVE, NULL), 0);
	assert_int_equal(config.pool_hot, 3);
	assert_true(config.pool_warm == CONFIG_AUTO);
	assert_string_equal(config.listen, "127.0.0.1:2"); /* the environment wins */
	config_deinit(&config);
	fputs("nope = 1\nno equals sign\npool_hot = 3\n", file);
	fclose(file);
	assert_int_equal(load(&config, path, CONFIG_SERVE, ":6: unknown setting \"nope\""), -EINVAL);
	assert_int_equal(load(&config, path, CONFIG_SERVE, ":7: expected `name = value`"), -EINVAL);
	assert_int_equal(load(&config, path, CONFIG_SERVE, ":8: pool_hot is already in line 3\n"), -EINVAL);
	assert_int_equal(load(&config, "/does/not/exist", CONFIG_SERVE, "cannot be read"), -EINVAL);
	unlink(path);
}

static void test_secrets_are_not_printed(void **state UNUSED)
{
	struct config config;
	CLEANUP(buf_deinit) struct buf text = BUF_MAX(16384);
	set_required();
	setenv("SPRITEGATE_REDIS_URL", "redis://user:hunter2@host:1/0", 1);
	assert_int_equal(load(&config, NULL, CONFIG_SERVE, NULL), 0);
	assert_int_equal(config_print(&config, &text), 0);
	assert_null(memmem(text.data, text.len, "hunter2", 7));
	assert_non_null(memmem(text.data, text.len, "redis_url = redis://host:1/0\n", 29));
	assert_null(memmem(text.data, text.len, "0123456789abcdef", 16));
	assert_non_null(memmem(text.data, text.len, "pepper = (set)", 14));
	config_deinit(&config);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_defaults, clean, clean),
		cmocka_unit_test_setup_teardown(test_refusals, clean, clean),
		cmocka_unit_test_setup_teardown(test_seconds, clean, clean),
		cmocka_unit_test_setup_teardown(test_pool_name, clean, clean),
		cmocka_unit_test_setup_teardown(test_a_default_bends_to_a_ceiling, clean, clean),
		cmocka_unit_test_setup_teardown(test_token_commands_need_less, clean, clean),
		cmocka_unit_test_setup_teardown(test_file, clean, clean),
		cmocka_unit_test_setup_teardown(test_secrets_are_not_printed, clean, clean),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
