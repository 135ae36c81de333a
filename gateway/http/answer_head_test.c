#include "gateway/http/answer_head.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>

static struct buf head;

static int set_up(void **state UNUSED)
{
	buf_init(&head, 1024);
	return 0;
}

static int tear_down(void **state UNUSED)
{
	buf_deinit(&head);
	return 0;
}

static void add(const char *name, const char *value)
{
	assert_int_equal(answer_head_add(&head, slice_str(name), slice_str(value)), 0);
}

static void assert_part(struct slice *rest, const char *name, const char *value, bool own)
{
	struct answer_part part;
	assert_true(answer_head_next(rest, &part));
	assert_true(slice_equal(part.name, slice_str(name)));
	assert_true(slice_equal(part.value, slice_str(value)));
	assert_int_equal(part.own, own);
}

static void assert_end(struct slice *rest)
{
	struct answer_part part;
	assert_false(answer_head_next(rest, &part));
}

static void test_nothing(void **state UNUSED)
{
	struct slice rest = buf_peek(&head);
	assert_end(&rest);
}

static void test_one_part_for_fields_in_a_row(void **state UNUSED)
{
	add("Server", "uvicorn");
	add("Set-Cookie", "a=1");
	add("set-cookie", "b: 2");
	struct slice rest = buf_peek(&head);
	assert_part(&rest, "Server", "uvicorn\r\nSet-Cookie: a=1\r\nset-cookie: b: 2", false);
	assert_end(&rest);
}

static void test_what_libmicrohttpd_decides_by_is_a_part_of_its_own(void **state UNUSED)
{
	static const char *const names[] = {"Date", "date", "Connection", "CONTENT-LENGTH", "Transfer-Encoding"};
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		buf_consume(&head, head.len);
		add("A", "1");
		add("B", "2");
		add(names[i], "x");
		add(names[i], "y");
		add("C", "3");
		struct slice rest = buf_peek(&head);
		assert_part(&rest, "A", "1\r\nB: 2", false);
		assert_part(&rest, names[i], "x", true);
		assert_part(&rest, names[i], "y", true);
		assert_part(&rest, "C", "3", false);
		assert_end(&rest);
	}
}

static void test_names_of_the_same_length_are_lines(void **state UNUSED)
{
	add("Link", "</x>");
	add("Keep-Alive", "1");
	add("Content-Length", "");
	add("X-Content-Size", "2");
	add("Transfer-Encodinh", "3");
	struct slice rest = buf_peek(&head);
	assert_part(&rest, "Link", "</x>\r\nKeep-Alive: 1", false);
	assert_part(&rest, "Content-Length", "", true);
	assert_part(&rest, "X-Content-Size", "2\r\nTransfer-Encodinh: 3", false);
	assert_end(&rest);
}

static void test_an_empty_value(void **state UNUSED)
{
	add("X-Empty", "");
	struct slice rest = buf_peek(&head);
	assert_part(&rest, "X-Empty", "", false);
	assert_end(&rest);
	add("X-Blank", " \t ");
	rest = buf_peek(&head);
	assert_part(&rest, "X-Empty", "\r\nX-Blank: ", false);
	assert_end(&rest);
}

static void assert_refused(struct slice name, struct slice value)
{
	size_t before = head.len;
	assert_int_equal(answer_head_add(&head, name, value), -EINVAL);
	assert_int_equal(head.len, before);
}

static void test_no_field_can_make_another(void **state UNUSED)
{
	assert_refused(SLICE("X"), SLICE("1\r\nY: 2"));
	assert_refused(SLICE("X"), SLICE("1\nY: 2"));
	assert_refused(SLICE("X"), SLICE("1\r"));
	assert_refused(SLICE("X"), SLICE("1\0"));
	assert_refused(SLICE("X"), SLICE("long enough to be looked at in words\r\nY: 2"));
	assert_refused(SLICE("X: 1\r\nY"), SLICE("2"));
	assert_refused(SLICE("X\0"), SLICE("2"));
	assert_refused(SLICE("X Y"), SLICE("2"));
	assert_refused(SLICE(""), SLICE("2"));
	assert_refused(SLICE("Date"), SLICE("1\r\nY: 2"));
}

static void test_its_maximum(void **state UNUSED)
{
	buf_init(&head, 10);
	add("A", "12345");
	assert_int_equal(answer_head_add(&head, SLICE("B"), SLICE("")), -EMSGSIZE);
	struct slice rest = buf_peek(&head);
	assert_part(&rest, "A", "12345", false);
	assert_end(&rest);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_nothing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_one_part_for_fields_in_a_row, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_what_libmicrohttpd_decides_by_is_a_part_of_its_own, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_names_of_the_same_length_are_lines, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_an_empty_value, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_no_field_can_make_another, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_its_maximum, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
