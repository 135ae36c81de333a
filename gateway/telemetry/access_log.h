/*
 * access_log - one JSON object a request; lines are collected and written once a loop turn
 *
 * Owns:       its line buffer; the descriptor belongs to whoever opened it.
 * Runs on:    one loop; every worker has its own, all write whole lines to the same descriptor, at most PIPE_BUF bytes at once.
 * Bounds:     256 KiB of lines waiting (for a descriptor that would block, too); lines beyond, and those that cannot be written, are
 *             dropped and counted.
 * Rule:       never a token, a cookie, a query string of exec or a command; control characters are escaped.
 */
#pragma once

#include "gateway/base/buf.h"

struct access_log {
	int fd; /* -1 = off */
	struct buf lines;
	uint64_t dropped;
};

struct access_record {
	uint64_t wall_ms;        /* when the head was complete */
	struct slice request_id;
	const char *trace_id;    /* "" = none */
	struct slice client;     /* address without port */
	struct slice method;
	struct slice path;       /* raw, without the query */
	const char *route;
	unsigned status;         /* 499 = the client left before an answer; 0 = the connection was cut without one */
	uint64_t bytes_in, bytes_out;
	uint64_t duration_us, first_byte_us;
	const char *aborted;     /* "client", "upstream", "gateway" or NULL */
	const char *code;        /* problem code of our own refusals, or NULL */
	/* Exec only; empty otherwise. */
	struct slice exec_id, kid, actor, policy;
	uint64_t policy_version; /* 0 = the token is not known */
	struct slice shadowed;   /* JSON array: limits that would have refused, but only are looked at; left out when empty or [] */
	const char *outcome, *tier;
	bool degraded;           /* let in while Redis was away; left out when not */
};

/* "stdout", "stderr", "off" or a file name (opened for appending). 0, or -errno with -1 in *fd. */
MUST_CHECK int access_log_open(const char *where, int *fd);

/* Opens the file anew under the same descriptor, for all who use it; nothing happens for what is no file. 0, or -errno: the old file
 * is kept. */
MUST_CHECK int access_log_reopen(const char *where, int fd);

void access_log_init(struct access_log *log, int fd);
void access_log_deinit(struct access_log *log);
void access_log_write(struct access_log *log, const struct access_record *record);

/* Writes what was collected; called once a loop turn. What a non-blocking descriptor does not take waits for the next one. */
void access_log_flush(struct access_log *log);
