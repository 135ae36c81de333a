/*
 * request - the JSON of POST /-/agent/exec, checked and turned into a struct
 *
 * Owns:       the parsed JSON and everything that points into it.
 * Lifetime:   exec_request_parse … exec_request_free; may move to another thread as a whole.
 * Results:    0; EXEC_REQUEST_MALFORMED (not JSON: 400, `failure` says where and why), EXEC_REQUEST_INVALID (422, `faults` says which
 *             fields); -ENOMEM.
 * Bounds:     depth 32; the limits below, each named in its fault.
 * Invariants: exactly one of command and argv is set; every string is free of NUL; Datasette may be asked for input_from (source.h).
 */
#pragma once

#include "gateway/base/buf.h"
#include "gateway/exec/multipart.h"
#include "gateway/exec/rows.h"
#include "gateway/json/json.h"

#define EXEC_REQUEST_MALFORMED 1
#define EXEC_REQUEST_INVALID   2

/* One argument of execve(2) may have 128 KiB with its NUL (MAX_ARG_STRLEN). */
#define EXEC_MAX_ARG_BYTES  131071
#define EXEC_MAX_ARGS       1024
#define EXEC_MAX_ARGV_BYTES (500 * 1024) /* command or argv, env and cwd together, as JSON strings with commas */
#define EXEC_MAX_ENV        256
#define EXEC_MAX_CWD_BYTES  4096
#define EXEC_DEFAULT_CWD    "/home/sprite"
#define EXEC_MAX_SESSION    64

#define EXEC_MAX_FILES      256
#define EXEC_MAX_OUTPUTS    64
#define EXEC_REQUEST_PART   "request" /* of a multipart body: the JSON */
#define EXEC_MAX_ROWS_PATH  2000
#define EXEC_MAX_ROWS_NAME  255  /* of a table or a column of its key */
#define EXEC_MAX_ROWS_KEY   4096 /* the key's columns together, as JSON */
#define EXEC_MAX_ROWS_HEAD  8192 /* what comes of them: every batch has it */
#define EXEC_MAX_PATH_BYTES 4095

/* Written before the command runs. */
struct exec_file {
	const char *path;  /* borrowed from root; absolute, or from cwd on */
	unsigned mode;
	struct buf bytes;
	const char *from;  /* … or what Datasette is asked for it, borrowed from root */
};

/* Where the rows of standard output are written to. */
struct exec_rows_to {
	const char *path;        /* of Datasette, borrowed from root; NULL = nowhere */
	enum rows_format format;
	uint64_t skip;           /* rows at the beginning that are not written */
	struct buf head;         /* of the body that Datasette gets, up to the first row */
};

struct exec_request {
	json_t *root;
	const char *command;     /* borrowed from root, NULL when argv is used */
	const char **argv;       /* owned array of borrowed strings */
	size_t argc;
	const char *cwd;
	const char **env;        /* owned array of owned "NAME=value" strings */
	size_t env_count;
	struct buf input;        /* standard input, decoded */
	const char *input_from;  /* … or what Datasette is asked for it: path and query, borrowed from root */
	struct exec_file *files; /* owned */
	size_t file_count;
	const char **outputs;    /* owned array of paths borrowed from root, no two the same: to be read back */
	size_t output_count;
	struct exec_rows_to rows_to;
	uint64_t timeout_ms;     /* 0 = not asked for */
	bool has_max_output;
	uint64_t max_output_bytes;
	const char *session;     /* borrowed from root; NULL = none. [A-Za-z0-9._-]{1,64}, no dot first */
};

/* `parts` are what the body may refer to; each must be used once. NULL = none. `faults` gets a JSON array [{"pointer", "detail"}] of at most
 * 32; 48 KiB are enough. */
MUST_CHECK int exec_request_parse(struct slice body, struct multipart *parts, struct exec_request **request, struct buf *faults,
				  struct json_failure *failure);
/* The same of JSON that was parsed already, with its numbers as reals. Takes `root`. */
MUST_CHECK int exec_request_read(json_t *root, struct multipart *parts, struct exec_request **request, struct buf *faults);
void exec_request_free(struct exec_request *request);
void exec_request_free_ptr(struct exec_request **request);

/* Can this be the name of a session? */
bool exec_session_name_is_valid(struct slice name);

/* Bytes of standard input and files, as far as they are known. */
uint64_t exec_request_input(const struct exec_request *request);

/* Whether Datasette is asked for a file, or for anything. */
bool exec_request_fetches_files(const struct exec_request *request);
bool exec_request_fetches(const struct exec_request *request);

/* What the command allow list of a token is asked about. */
const char *exec_request_program(const struct exec_request *request);
