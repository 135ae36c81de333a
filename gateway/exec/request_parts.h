/*
 * request_parts - what request.c, request_files.c and request_rows.c share; nobody else includes it
 */
#pragma once

#include "gateway/exec/request.h"

#define REQUEST_INPUT_BYTES (256UL * 1024 * 1024)
#define REQUEST_MAX_BYTES   1e18 /* far above every ceiling */

/* Where faults go, and the first error that is no fault of the caller. */
struct request_reading {
	struct exec_request *request;
	struct multipart *parts; /* NULL = none */
	struct buf *faults;
	unsigned count;
	size_t bytes; /* of the command, the arguments, the variables and cwd, as the sandbox's API gets them: JSON strings with a comma */
	int error;
};

void request_fault(struct request_reading *reading, const char *pointer, const char *format, ...) PRINTF(3, 4);

/* "/env/a~1b" */
void request_point(char out[JSON_POINTER_LEN], const char *parent, const char *name);

/* "an object" */
const char *request_type_name(const json_t *value);

bool request_is_whole(const json_t *number);

/* Zeroed room for so many entries of a member, which the request owns; NULL: they are too many, or there is no memory. */
void *request_room(struct request_reading *reading, const char *pointer, size_t entries, size_t limit, size_t size);

/* --- request_files.c: what goes in, and which files come back --- */

void request_read_stdin(struct request_reading *reading, json_t *value);
void request_read_files(struct request_reading *reading, json_t *value);
void request_read_outputs(struct request_reading *reading, const json_t *value);

/* --- request_rows.c --- */

void request_read_stdout_to(struct request_reading *reading, json_t *object);
