/*
 * rows - what a command prints, read as rows while it comes: a JSON array of objects, JSON objects one after the other (NDJSON), or CSV
 *
 * CSV is that of RFC 4180 with a header, whose names the rows get; every value is a string there, as it stands. Lines may end in LF alone,
 * and empty ones are none. JSON rows are passed on as they were written, once they are known to be an object (strictly: json.h).
 *
 * Owns:       the row that has begun, the names of a header.
 * Lifetime:   rows_init … rows_deinit.
 * Re-entry:   on_row runs inside rows_feed() and rows_end().
 * Results:    0; ROWS_E_BAD (`detail` says how, `count` rows were good; it is dead then); negative (no memory, what on_row says).
 * Bounds:     ROWS_ROW_MAX bytes of a row; ROWS_NAMES_MAX of a header's names, which each row has again, and ROWS_COLUMNS_MAX of them.
 */
#pragma once

#include "gateway/base/buf.h"

#define ROWS_E_BAD 1

#define ROWS_ROW_MAX     ((size_t)1024 * 1024)
#define ROWS_NAMES_MAX   ((size_t)64 * 1024)
#define ROWS_COLUMNS_MAX 2000 /* SQLITE_MAX_COLUMN */

enum rows_format { ROWS_DETECT, ROWS_JSON, ROWS_NDJSON, ROWS_CSV };

struct rows {
	enum rows_format format; /* as told, or by the first byte that is no blank: [ or {, anything else is CSV */
	int state;
	uint64_t count;          /* rows so far */
	char detail[160];        /* of ROWS_E_BAD: a plain sentence */
	struct buf row;          /* JSON of the row that has begun */
	size_t marks;            /* bytes held back that begin a byte order mark; more than it has: it is over */
	bool paused;             /* set by on_row: no row after this one */
	size_t taken;            /* bytes of what was last fed that were read */
	/* Of JSON: */
	unsigned depth;
	bool in_string, escaped;
	/* Of CSV: */
	struct buf field;
	size_t fields;           /* of the row that has begun */
	char **names;            /* as JSON strings; owned */
	size_t columns, names_len;
	bool with_names;
	/* Takes a row: a JSON object, valid during the call. */
	int (*on_row)(void *ctx, struct slice row);
	void *ctx;
};

void rows_init(struct rows *rows, enum rows_format format, int (*on_row)(void *ctx, struct slice row), void *ctx);
void rows_deinit(struct rows *rows);

/* Reads all of it, unless on_row pauses: then `taken` bytes, and what follows them is to be fed again. */
MUST_CHECK int rows_feed(struct rows *rows, struct slice bytes);

/* `whole`: this is all that was printed. Otherwise a row that nothing ends is not taken for one. */
MUST_CHECK int rows_end(struct rows *rows, bool whole);
