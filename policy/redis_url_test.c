#include "policy/redis_url.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>

static struct redis_url good(const char *text)
{
	struct redis_url url;
	const char *why = NULL;
	int r = redis_url_parse(slice_str(text), &url, &why);
	if (r)
		print_error("%s: %s\n", text, why);
	assert_int_equal(r, 0);
	return url;
}

static void expect(const char *text, const char *host, unsigned port, unsigned db, const char *user, const char *password)
{
	struct redis_url url = good(text);
	assert_string_equal(url.host, host);
	assert_string_equal(url.path, "");
	assert_int_equal(url.port, port);
	assert_int_equal(url.db, db);
	assert_string_equal(url.user, user);
	assert_string_equal(url.password, password);
}

static void test_network(void **state UNUSED)
{
	expect("redis://localhost", "localhost", 6379, 0, "", "");
	expect("redis://localhost/", "localhost", 6379, 0, "", "");
	expect("redis://10.0.0.1:7000/3", "10.0.0.1", 7000, 3, "", "");
	expect("redis://:pw@h", "h", 6379, 0, "", "pw");
	expect("redis://u:p%40%2F%3a@h:1/65535", "h", 1, 65535, "u", "p@/:");
	expect("redis://default:a@b:c@h", "h", 6379, 0, "default", "a@b:c");
	expect("redis://[fdaa::3]", "fdaa::3", 6379, 0, "", "");
	expect("redis://u:p@[::1]:6380/1", "::1", 6380, 1, "u", "p");
	assert_false(good("redis://h").tls);
	assert_true(good("rediss://fly-x.upstash.io:6379").tls);
}

static void test_unix(void **state UNUSED)
{
	struct redis_url url = good("unix:///run/redis.sock");
	assert_string_equal(url.path, "/run/redis.sock");
	assert_string_equal(url.host, "");
	url = good("unix://:pw@/tmp/a%20b?db=2");
	assert_string_equal(url.path, "/tmp/a b");
	assert_string_equal(url.password, "pw");
	assert_int_equal(url.db, 2);
	assert_string_equal(good("unix:///tmp/a@b").path, "/tmp/a@b");
}

static void test_refused(void **state UNUSED)
{
	static const char *const bad[] = {
		"",
		"localhost",
		"http://h",
		"redis:/h",
		"redis://",
		"redis://:6379",
		"redis:///1",
		"redis://h:",
		"redis://h:0",
		"redis://h:65536",
		"redis://h:x",
		"redis://h/x",
		"redis://h/-1",
		"redis://h/65536",
		"redis://pw@h",
		"redis://u:@h",
		"redis://@h",
		"redis://h h",
		"redis://[::1",
		"redis://[::1]x",
		"redis://[]",
		"redis://::1",
		"redis://u:%zz@h",
		"redis://u:%4@h",
		"redis://u:%00@h",
		"redis://h\r\n",
		"redis://h?db=1",
		"unix://",
		"unix://tmp/x",
		"unix:///",
		"unix:///x?db=",
		"unix:///x?d=1",
		"unix://u:p@x",
	};
	struct redis_url url;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		const char *why = NULL;
		int r = redis_url_parse(slice_str(bad[i]), &url, &why);
		if (r == 0)
			print_error("taken: %s\n", bad[i]);
		assert_int_equal(r, -EINVAL);
		assert_non_null(why);
	}
}

static void test_too_long(void **state UNUSED)
{
	char text[700];
	struct redis_url url;
	const char *why;
	for (size_t len = 500; len < 600; len++) {
		int n = snprintf(text, sizeof text, "redis://:%0*d@h", (int)len, 0);
		int r = redis_url_parse(slice_of(text, (size_t)n), &url, &why);
		assert_int_equal(r == 0, len < sizeof url.password);
		n = snprintf(text, sizeof text, "redis://%0*d", (int)len - 300, 0);
		r = redis_url_parse(slice_of(text, (size_t)n), &url, &why);
		assert_int_equal(r == 0, len - 300 < sizeof url.host);
		n = snprintf(text, sizeof text, "unix:///%0*d", (int)len - 420, 0);
		r = redis_url_parse(slice_of(text, (size_t)n), &url, &why);
		assert_int_equal(r == 0, len - 420 + 1 < sizeof url.path);
	}
}

/* A password must not survive a URL that is refused after it was read. */
static void test_refusal_keeps_nothing(void **state UNUSED)
{
	struct redis_url url;
	const char *why;
	assert_int_equal(redis_url_parse(SLICE("redis://u:hunter2@h:0"), &url, &why), -EINVAL);
	assert_string_equal(url.password, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_network),
		cmocka_unit_test(test_unix),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_too_long),
		cmocka_unit_test(test_refusal_keeps_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
