/*
 * audit_table - ships audit records into a table of Datasette, through its JSON write API
 *
 * Rows go in batches, one request at a time, at most a second after they came. The table is made when it is not there. A batch that was
 * not acknowledged is sent again: rows whose id is in the table already are left alone, so nothing is there twice.
 *
 * Owns:       its connection to Datasette, the rows that wait.
 * Lifetime:   audit_table_new … audit_table_free (asynchronous: what waits is sent first, for 2 s at most).
 * Runs on:    the loop given.
 * Bounds:     AUDIT_TABLE_ROWS rows and AUDIT_TABLE_BYTES waiting; rows beyond are dropped and counted. Between failures 1 to 30 s.
 */
#pragma once

#include "gateway/base/secret.h"
#include "gateway/curl/curl_driver.h"

#include <uv.h>

#define AUDIT_TABLE_ROWS  10000
#define AUDIT_TABLE_BYTES (8 * 1024 * 1024)

struct audit_table;

struct audit_table_options {
	uv_loop_t *loop;
	struct curl_driver *curl;   /* borrowed */
	const char *datasette_url, *datasette_ca_file;
	const char *where;          /* DATABASE/TABLE, see audit_table_check() */
	const struct secret *token; /* API token of Datasette; borrowed */
};

/* Is this DATABASE/TABLE, both of letters, digits, dash and underscore? */
bool audit_table_check(const char *where);

struct audit_table *audit_table_new(const struct audit_table_options *options);
void audit_table_free(struct audit_table *table, void (*on_freed)(void *ctx), void *ctx);

/* One row: a JSON object with every member of audit_columns. */
void audit_table_add(struct audit_table *table, struct slice row);

/* Rows that were given up, so far. */
uint64_t audit_table_dropped(const struct audit_table *table);
