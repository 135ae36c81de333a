#include "gateway/exec/multipart.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>

static struct multipart multipart;

static void test_boundaries(void **state UNUSED)
{
	static const struct {
		const char *type, *boundary; /* NULL = none */
	} rows[] = {
		{"multipart/form-data; boundary=x", "x"},
		{"Multipart/Form-Data;charset=utf-8;BOUNDARY=\"a b'()+_,-./:=?\"", "a b'()+_,-./:=?"},
		{"multipart/form-data", NULL},
		{"multipart/form-data; boundary=", NULL},
		{"multipart/form-data; boundary=\"\"", NULL},
		{"multipart/form-data; boundary=x; boundary=y", NULL},
		{"multipart/form-data; boundary=\"x \"", NULL},
		{"multipart/form-data; boundary=\"x", NULL},
		{"multipart/form-data; boundary=\"a\\\"b\"", NULL},
		{"multipart/form-data boundary=x", NULL},
		{"multipart/mixed; boundary=x", NULL},
		{"application/json", NULL},
		{"", NULL},
		{"multipart/form-data; boundary=1234567890123456789012345678901234567890123456789012345678901234567890",
		 "1234567890123456789012345678901234567890123456789012345678901234567890"},
		{"multipart/form-data; boundary=12345678901234567890123456789012345678901234567890123456789012345678901", NULL},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char boundary[MULTIPART_BOUNDARY_MAX + 1] = "";
		bool found = multipart_boundary(slice_str(rows[i].type), boundary);
		if (found != (rows[i].boundary != NULL) || (found && strcmp(boundary, rows[i].boundary) != 0))
			fail_msg("%s: %s", rows[i].type, boundary);
	}
}

#define HEAD(name) "Content-Disposition: form-data; name=\"" name "\"\r\n"

static void test_parts(void **state UNUSED)
{
	static const char body[] = "--b\r\n" HEAD(
		"request") "\r\n{}\r\n--b\r\ncontent-disposition:form-data;filename=\"a;\\\"b\";name=x.y-z_1\r\n"
			   "Content-Type: text/plain\r\nContent-Transfer-Encoding: Binary\r\n\r\n\r\n--\r\n-b\r\n--b\r\n" HEAD(
				   "empty") "\r\n\r\n--b--\r\n";
	assert_int_equal(multipart_parse(&multipart, "b", slice_of(body, sizeof body - 1)), 0);
	assert_int_equal(multipart.count, 3);
	assert_true(slice_equal(multipart_find(&multipart, "request")->bytes, SLICE("{}")));
	assert_true(slice_equal(multipart_find(&multipart, "x.y-z_1")->bytes, SLICE("\r\n--\r\n-b")));
	assert_int_equal(multipart_find(&multipart, "empty")->bytes.len, 0);
	assert_null(multipart_find(&multipart, "other"));
	/* Whatever is cut off is missed, but for the last line end. */
	for (size_t len = 0; len < sizeof body - 1; len++)
		assert_int_equal(multipart_parse(&multipart, "b", slice_of(body, len)) == 0, len == sizeof body - 3);
}

static void test_faults(void **state UNUSED)
{
	static const char *const rows[][2] = {
		{"", "does not begin"},
		{"x\r\n--b--", "does not begin"},
		{"--b\n", "Part 0 is not followed"},
		{"--b\r\n" HEAD("a") "\r\nx", "Part 1 is not ended"},
		{"--b\r\n" HEAD("a") "\r\nx\r\n--b", "Part 1 is not followed"},
		{"--b\r\n" HEAD("a") "\r\nx\r\n--b--more", "Part 1 is not followed"},
		{"--b\r\n" HEAD("a") "\r\nx\r\n--b--\r\nmore", "Part 1 is not followed"},
		{"--b\r\n" HEAD("a") "\r\nx\r\n--bc\r\n", "Part 1 is not followed"},
		{"--b\r\n" HEAD("a") "\r\nx\r\n--b\r\n" HEAD("a") "\r\n\r\n--b--", "Part 2 has the name"},
		{"--b\r\n\r\nx\r\n--b--", "Part 1 has no Content-Disposition"},
		{"--b\r\n" HEAD("a") HEAD("b") "\r\nx\r\n--b--", "Part 1 has two"},
		{"--b\r\n" HEAD("") "\r\nx\r\n--b--", "Part 1 has a name"},
		{"--b\r\n" HEAD("a b") "\r\nx\r\n--b--", "Part 1 has a name"},
		{"--b\r\nContent-Disposition: attachment; name=a\r\n\r\nx\r\n--b--", "Part 1 has a Content-Disposition"},
		{"--b\r\nContent-Disposition: form-data; name=a; name=b\r\n\r\nx\r\n--b--", "Part 1 has a Content-Disposition"},
		{"--b\r\nContent-Disposition: form-data; name=\"a\r\n\r\nx\r\n--b--", "Part 1 has a Content-Disposition"},
		{"--b\r\nno field\r\n\r\nx\r\n--b--", "Part 1 has a header line"},
		{"--b\r\n" HEAD("a") "Content-Transfer-Encoding: base64\r\n\r\nx\r\n--b--", "Part 1 has a Content-Transfer-Encoding"},
		{"--b\r\nX: 1", "Part 1 has a head"},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (multipart_parse(&multipart, "b", slice_str(rows[i][0])) != MULTIPART_E_BAD || !strstr(multipart.detail, rows[i][1]))
			fail_msg("%s: %s", rows[i][0], multipart.detail);
}

static void test_bounds(void **state UNUSED)
{
	static char body[64 * 1024];
	size_t len = 0;
	for (int i = 0; i <= MULTIPART_PARTS; i++)
		len += (size_t)snprintf(body + len, sizeof body - len, "--b\r\n" HEAD("p%d") "\r\n\r\n", i);
	assert_int_equal(multipart_parse(&multipart, "b", slice_of(body, len)), MULTIPART_E_BAD);
	assert_non_null(strstr(multipart.detail, "one too many"));
	len = (size_t)snprintf(body, sizeof body, "--b\r\n" HEAD("a") "X: ");
	memset(body + len, 'x', 4096);
	assert_int_equal(multipart_parse(&multipart, "b", slice_of(body, sizeof body)), MULTIPART_E_BAD);
	assert_non_null(strstr(multipart.detail, "within 4096"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_boundaries),
		cmocka_unit_test(test_parts),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_bounds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
