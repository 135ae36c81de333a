/*
 * source - what a command may ask Datasette for, by path and query
 *
 * Pure: borrows.
 */
#pragma once

#include "gateway/base/buf.h"
#include "gateway/json/pointer.h"

/* How a source failed. */
struct source_failure {
	char pointer[JSON_POINTER_LEN]; /* which */
	bool unrun;       /* the command has certainly not run */
	unsigned status;  /* of Datasette's answer; 0 = it gave none */
	char detail[200]; /* a plain sentence */
};

/* Members of a problem: "source_status" and "pointer". */
MUST_CHECK int source_put_failure(const struct source_failure *failure, struct buf *out);

/* NULL when Datasette may be asked for it, else what is wrong with it: it leads to another host or to the gateway, or Datasette and the
 * gateway might read it in two ways. */
const char *source_fault(struct slice target);

/* The same of a path that rows are written to: /db/-/create, /db/table/-/insert or /db/table/-/upsert. `creates`: the first of them. */
const char *source_rows_fault(struct slice target, bool *creates);
