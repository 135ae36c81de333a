#include "gateway/exec/rows.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static int keep(void *ctx, struct slice row)
{
	struct buf *out = ctx;
	int r = buf_append(out, row);
	return r < 0 ? r : buf_append_char(out, ' ');
}

static int read_rows(enum rows_format format, struct slice text, bool whole, size_t step, struct buf *out, struct rows *rows)
{
	int r = 0;
	rows_init(rows, format, keep, out);
	for (struct slice left = text; r == 0 && left.len; left = slice_from(left, step))
		r = rows_feed(rows, slice_of(left.data, left.len < step ? left.len : step));
	return r == 0 ? rows_end(rows, whole) : r;
}

/* Fed in one piece, and byte by byte. */
static void check(enum rows_format format, struct slice text, bool whole, const char *want, const char *detail)
{
	for (int i = 0; i < 2; i++) {
		CLEANUP(buf_deinit) struct buf out = BUF_MAX(64 * 1024);
		struct rows rows;
		int r = read_rows(format, text, whole, i ? 1 : text.len + 1, &out, &rows);
		if (r != (detail ? ROWS_E_BAD : 0) || (detail && !strstr(rows.detail, detail)))
			fail_msg("%.*s: %d, %s; not %s", SLICE_FMT(text), r, rows.detail, detail ? detail : "none");
		if (!slice_equal(buf_peek(&out), slice_str(want)))
			fail_msg("%.*s: %.*s, not %s", SLICE_FMT(text), SLICE_FMT(buf_peek(&out)), want);
		rows_deinit(&rows);
	}
}

#define OK(text, want)          check(ROWS_DETECT, SLICE(text), true, want, NULL)
#define BAD(text, want, detail) check(ROWS_DETECT, SLICE(text), true, want, detail)

static void test_arrays(void **state UNUSED)
{
	OK("", "");
	OK(" \n", "");
	OK("[]", "");
	OK(" [ {\"a\":1.50} , {\"a\" : \"}]\\\"{\"},{}]\n", "{\"a\":1.50} {\"a\" : \"}]\\\"{\"} {} ");
	OK("\xef\xbb\xbf[{\"big\":123456789012345678901234567890,\"n\":[[1],{\"a\":null}]}]",
	   "{\"big\":123456789012345678901234567890,\"n\":[[1],{\"a\":null}]} ");
	BAD("[1]", "", "no JSON object");
	BAD("[[1]]", "", "no JSON object");
	BAD("[{},]", "{} ", "no JSON object");
	BAD("[{}{}]", "{} ", "neither a comma");
	BAD("[{}] {}", "{} ", "goes on after");
	BAD("[{},{\"a\":", "{} ", "ends within a row");
	BAD("[{}", "{} ", "before the array");
	BAD("[", "", "before the array");
	BAD("[{},{\"a\":1,\"a\":2}]", "{} ", "It is no JSON");
	BAD("[{\"a\":tru}]", "", "It is no JSON");
	BAD("[{]]", "", "It is no JSON");
	check(ROWS_JSON, SLICE("{}"), true, "", "does not begin");
}

static void test_objects(void **state UNUSED)
{
	OK("{\"a\":1}\n{\"a\":2}", "{\"a\":1} {\"a\":2} ");
	OK("{\"a\":\n1}\r\n\n{}\n", "{\"a\":\n1} {} ");
	BAD("{}\n[]", "{} ", "no JSON object");
	BAD("{}\nnull", "{} ", "no JSON object");
	BAD("{}\n{\"a\"", "{} ", "ends within a row");
	check(ROWS_NDJSON, SLICE("[{}]"), true, "", "no JSON object");
	/* A row that is whole needs nothing after it. */
	check(ROWS_NDJSON, SLICE("{}\n{}"), false, "{} {} ", NULL);
}

static void test_csv(void **state UNUSED)
{
	OK("a,b\n1,2\n", "{\"a\":\"1\",\"b\":\"2\"} ");
	OK("a,b\r\n1,\r\n,2", "{\"a\":\"1\",\"b\":\"\"} {\"a\":\"\",\"b\":\"2\"} ");
	OK("\xef\xbb\xbf\"a\n\"\"\",\xc3\xa4\n\"1,\r\n2\",\"\"\n", "{\"a\\n\\\"\":\"1,\\r\\n2\",\"\xc3\xa4\":\"\"} ");
	OK("a\n\n1\n\r\n2", "{\"a\":\"1\"} {\"a\":\"2\"} ");
	OK("a\n\"\"\n", "{\"a\":\"\"} ");
	OK("a,b", "");
	/* Characters that begin as a byte order mark does. */
	OK("\xef\xbc\xa1,b\n1,2\n", "{\"\xef\xbc\xa1\":\"1\",\"b\":\"2\"} ");
	OK("\xef\xbb\xbc\n1\n", "{\"\xef\xbb\xbc\":\"1\"} ");
	OK("\xef\xbb\xbf\xef\xbb\xbf\n1\n", "{\"\xef\xbb\xbf\":\"1\"} ");
	OK("\xef\xbb\xbf", "");
	BAD("\xef\xbb", "", "not UTF-8");
	BAD("\xef{}", "", "not UTF-8");
	BAD("a,a\n", "", "twice");
	BAD("a,,b\n", "", "without a name");
	BAD("a,b\n1,2\n1\n", "{\"a\":\"1\",\"b\":\"2\"} ", "has 1 fields, the header 2");
	BAD("a\n1,2\n", "", "more fields");
	BAD("a\n1\"\n", "", "A quote");
	BAD("a\n\"1\"2\n", "", "closing quote");
	BAD("a\n\"1\n", "", "quoted field");
	BAD("a\n1\r2\n", "", "carriage return");
	BAD("a\n\xff\n", "", "not UTF-8");
	BAD("a\n1\0\n", "", "NUL");
	/* A number that was cut looks like one. */
	check(ROWS_CSV, SLICE("a,b\n1,2\n1,23"), false, "{\"a\":\"1\",\"b\":\"2\"} ", "within a row");
	check(ROWS_CSV, SLICE("a,b\n1,2\n"), false, "{\"a\":\"1\",\"b\":\"2\"} ", NULL);
	check(ROWS_CSV, SLICE("{a\n1\n"), true, "{\"{a\":\"1\"} ", NULL);
}

static void test_bounds(void **state UNUSED)
{
	static char text[ROWS_ROW_MAX + 64];
	static const char *const heads[] = {"a\n", "[{\"a\":\"", "{\"a\":\""};
	for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
		CLEANUP(buf_deinit) struct buf out = BUF_MAX(64);
		struct rows rows;
		memset(text, 'x', sizeof text);
		memcpy(text, heads[i], strlen(heads[i]));
		assert_int_equal(read_rows(ROWS_DETECT, slice_of(text, sizeof text), true, 4096, &out, &rows), ROWS_E_BAD);
		assert_non_null(strstr(rows.detail, "longer than"));
		assert_int_equal(rows_feed(&rows, SLICE("more")), ROWS_E_BAD);
		rows_deinit(&rows);
	}
	CLEANUP(buf_deinit) struct buf out = BUF_MAX(64), header = BUF_MAX(64 * 1024);
	struct rows rows;
	for (int i = 0; i <= ROWS_COLUMNS_MAX; i++)
		assert_int_equal(buf_printf(&header, "c%d,", i), 0);
	assert_int_equal(read_rows(ROWS_CSV, buf_peek(&header), true, 4096, &out, &rows), ROWS_E_BAD);
	assert_non_null(strstr(rows.detail, "more than 2000 columns"));
	rows_deinit(&rows);
	memset(text, 'x', sizeof text);
	text[ROWS_NAMES_MAX / 2] = ',';
	text[ROWS_NAMES_MAX] = '\n';
	assert_int_equal(read_rows(ROWS_CSV, slice_of(text, ROWS_NAMES_MAX + 1), true, 4096, &out, &rows), ROWS_E_BAD);
	assert_non_null(strstr(rows.detail, "names of the header"));
	rows_deinit(&rows);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_arrays),
		cmocka_unit_test(test_objects),
		cmocka_unit_test(test_csv),
		cmocka_unit_test(test_bounds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
