#include "gateway/serve.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>

/* Every setting that another module reads is read by the check as well. */
static void test_check(void **state UNUSED)
{
	static const struct {
		const char *name, *bad, *good;
	} rows[] = {
		{"SPRITEGATE_LISTEN", "nonsense", "127.0.0.1:0"},
		{"SPRITEGATE_ADMIN_LISTEN", "127.0.0.1", "[::1]:0"},
		{"SPRITEGATE_REDIS_URL", "http://127.0.0.1", "rediss://user:word@redis.example:6380/2"},
		{"SPRITEGATE_DATASETTE_URL", "ftp://127.0.0.1", "unix:/run/datasette"},
		{"SPRITEGATE_DATASETTE_CA_FILE", "/no/such/file", "/etc/passwd"},
		{"SPRITEGATE_DATASETTE_CA_FILE", "/etc", "/etc/passwd"},
		{"SPRITEGATE_SPRITES_URL", "api.sprites.dev", "https://api.sprites.dev"},
		{"SPRITEGATE_TRUSTED_PROXIES", "10.0.0.0/99", "10.0.0.0/8"},
		{"SPRITEGATE_CLIENT_MEMORY_BYTES", "1MiB", "1GiB"},
		{"SPRITEGATE_MCP_HOSTS", "https://a.example", "a.example, b.example"},
	};
	setenv("SPRITEGATE_SPRITES_TOKEN", "token", 1);
	setenv("SPRITEGATE_PEPPER", "0123456789abcdef0123456789abcdef", 1);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		for (int good = 0; good < 2; good++) {
			CLEANUP(config_deinit) struct config config;
			CLEANUP(buf_deinit) struct buf faults = BUF_MAX(4096);
			config_init(&config);
			setenv(rows[i].name, good ? rows[i].good : rows[i].bad, 1);
			assert_int_equal(config_load(&config, NULL, CONFIG_SERVE, &faults), 0);
			if ((serve_check(&config, &faults) == 0) != good || (faults.len == 0) != good)
				fail_msg("%s=%s", rows[i].name, good ? rows[i].good : rows[i].bad);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_check)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
