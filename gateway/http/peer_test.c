#include "gateway/http/peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>

static void test_peers(void **state UNUSED)
{
	struct peer_set set;
	assert_int_equal(peer_set_parse(SLICE(" 10.0.0.0/8, fdaa::/16,,127.0.0.1 "), &set), 0);
	assert_int_equal(set.count, 3);
	static const char *const in[] = {"10.1.2.3", "fdaa:1::2", "127.0.0.1", "::ffff:10.9.9.9"};
	static const char *const out[] = {"11.1.2.3", "fdab::1", "127.0.0.2", "", "junk", "10.1.2.3:80", "::1"};
	for (size_t i = 0; i < ARRAY_LEN(in); i++)
		assert_true(peer_set_has(&set, slice_str(in[i])));
	for (size_t i = 0; i < ARRAY_LEN(out); i++)
		assert_false(peer_set_has(&set, slice_str(out[i])));
	unsigned char bytes[16];
	assert_true(peer_parse(SLICE("10.0.0.1"), bytes) && bytes[10] == 0xff && bytes[15] == 1);
	assert_false(peer_parse(SLICE("10.0.0.1:80"), bytes));
	assert_int_equal(peer_set_parse(SLICE("172.16.0.0/12"), &set), 0);
	assert_true(peer_set_has(&set, SLICE("172.31.255.255")));
	assert_false(peer_set_has(&set, SLICE("172.32.0.0")));
	assert_int_equal(peer_set_parse(SLICE("0.0.0.0/0"), &set), 0);
	assert_true(peer_set_has(&set, SLICE("8.8.8.8")));
	assert_false(peer_set_has(&set, SLICE("::1")));
	assert_int_equal(peer_set_parse(SLICE(""), &set), 0);
	assert_false(peer_set_has(&set, SLICE("127.0.0.1")));
	static const char *const bad[] = {"x", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "1.2.3"};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(peer_set_parse(slice_str(bad[i]), &set), -EINVAL);
	char many[PEER_SET_MAX * 4 + 8] = "";
	for (size_t i = 0; i <= PEER_SET_MAX; i++)
		strcat(many, "::1,");
	assert_int_equal(peer_set_parse(slice_str(many), &set), -E2BIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_peers)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
