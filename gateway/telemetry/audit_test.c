#include "gateway/telemetry/access_log.h"
#include "gateway/telemetry/audit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define TORN 10 /* bytes of the line that finds no room */

struct fixture {
	uv_loop_t loop;
	struct audit *audit;
	char file[64];
	bool freed;
};

static void on_freed(void *ctx)
{
	((struct fixture *)ctx)->freed = true;
}

static int setup(void **state)
{
	static struct fixture f;
	f = (struct fixture){.file = "/tmp/audit_test.XXXXXX"};
	int fd;
	close(mkstemp(f.file));
	assert_int_equal(access_log_open(f.file, &fd), 0);
	assert_int_equal(uv_loop_init(&f.loop), 0);
	f.audit = audit_new(&(struct audit_options){.loop = &f.loop, .fd = fd, .where = f.file, .instance = "one"});
	assert_non_null(f.audit);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	unlink(f->file);
	return uv_loop_close(&f->loop);
}

static void write_one(struct fixture *f)
{
	struct audit_record record = AUDIT_RECORD("run");
	audit_write(f->audit, &record);
}

static off_t size_of(const char *file)
{
	struct stat status;
	assert_int_equal(stat(file, &status), 0);
	return status.st_size;
}

/* As a full disk does: what fits is written, the rest is refused. */
static void let_grow_to(rlim_t bytes)
{
	struct rlimit limit;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* One whole line, then one that is torn. */
static void tear(struct fixture *f)
{
	write_one(f);
	while (!size_of(f->file))
		uv_run(&f->loop, UV_RUN_ONCE);
	let_grow_to((rlim_t)size_of(f->file) + TORN);
	write_one(f);
	while (!audit_dropped(f->audit))
		uv_run(&f->loop, UV_RUN_ONCE);
	let_grow_to(RLIM_INFINITY);
}

/* The lengths of lines that are no objects, 0 for those that are; how many lines there are. */
static size_t read_lines(const char *file, size_t *broken, size_t max)
{
	char line[4096];
	size_t count = 0;
	FILE *in = fopen(file, "re");
	assert_non_null(in);
	for (; count < max && fgets(line, sizeof line, in); count++) {
		size_t len = strlen(line);
		assert_int_equal(line[len - 1], '\n');
		bool whole = len > 2 && line[0] == '{' && line[len - 2] == '}' && !strstr(line + 1, "{\"id\"");
		broken[count] = whole ? 0 : len - 1;
	}
	fclose(in);
	return count;
}

static void end(struct fixture *f)
{
	audit_free(f->audit, on_freed, f);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_true(f->freed);
}

static void test_a_torn_line_is_ended(void **state)
{
	struct fixture *f = *state;
	size_t broken[8];
	tear(f);
	write_one(f);
	end(f);
	assert_int_equal(read_lines(f->file, broken, ARRAY_LEN(broken)), 3);
	assert_int_equal(broken[0], 0);
	assert_int_equal(broken[1], TORN);
	assert_int_equal(broken[2], 0);
}

static void test_a_new_file_begins_with_a_record(void **state)
{
	struct fixture *f = *state;
	char moved[80];
	size_t broken[8];
	tear(f);
	snprintf(moved, sizeof moved, "%s.1", f->file);
	assert_int_equal(rename(f->file, moved), 0);
	audit_reopen(f->audit);
	unlink(moved);
	write_one(f);
	end(f);
	assert_int_equal(read_lines(f->file, broken, ARRAY_LEN(broken)), 1);
	assert_int_equal(broken[0], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_a_torn_line_is_ended, setup, teardown),
					   cmocka_unit_test_setup_teardown(test_a_new_file_begins_with_a_record, setup, teardown)};
	signal(SIGXFSZ, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
