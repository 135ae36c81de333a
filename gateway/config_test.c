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
static const char *const names[] = {"SPRITEGATE_SPRITES_TOKEN", "SPRITEGATE_PEPPER",	    "SPRITEGATE_POOL_HOT", "SPRITEGATE_MAX_HEAD_BYTES",
				    "SPRITEGATE_NOPE",		"SPRITEGATE_REDIS_URL", "SPRITEGATE_LISTEN",   "SPRITEGATE_POOL_WARM",
				    "SPRITEGATE_POOL_MAX"};

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
	fputs("nope = 1\nno equals sign\n", file);
	fclose(file);
	assert_int_equal(load(&config, path, CONFIG_SERVE, ":6: unknown setting \"nope\""), -EINVAL);
	assert_int_equal(load(&config, path, CONFIG_SERVE, ":7: expected `name = value`"), -EINVAL);
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
		cmocka_unit_test_setup_teardown(test_token_commands_need_less, clean, clean),
		cmocka_unit_test_setup_teardown(test_file, clean, clean),
		cmocka_unit_test_setup_teardown(test_secrets_are_not_printed, clean, clean),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
