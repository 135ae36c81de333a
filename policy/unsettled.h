/*
 * unsettled - settlements that Redis has not acknowledged when the gateway ends, in a file for its next start
 *
 * The file has a JSON object a line, no secrets and nothing of a command but its use. It is only as good as the end of the process was
 * orderly: of one that is killed nothing is in it, and what it held ends by itself, charged in full. A lease is settled once, however
 * often its line is read (scripts/settle.lua).
 *
 * Owns:       its path, copies of what it is given and, once open, a lock on the file: of two gateways the second does not start.
 * Lifetime:   unsettled_new … unsettled_free, around every admission that was given it.
 * Runs on:    unsettled_keep() on any thread; the rest on one, and they block for as long as the file system does.
 * Results:    -errno.
 * Bounds:     UNSETTLED_MAX settlements, each kept for a day: there is no lease that lasts longer.
 */
#pragma once

#include "gateway/base/buf.h"
#include "policy/admission.h"

#define UNSETTLED_MAX      4096
#define UNSETTLED_LINE_MAX 512

struct unsettled_entry {
	struct admission_lease lease; /* id, kid, actor ("" = not known), degraded and exec_id */
	uint64_t used_ms, out_bytes;
	uint64_t ended_ms;            /* since 1970, by our clock */
	bool refund;
};

struct unsettled;

/* NULL = no memory. */
struct unsettled *unsettled_new(const char *path);
void unsettled_free(struct unsettled *unsettled);

/* Makes the file when it is not there, for nobody else to read, locks it, and reads what the last run left. Later it is written by the same
 * descriptor: serving opens no file that only its start may, and changes no names (gateway/confine.h). A file with a line that is not
 * understood is moved aside, said in the log, and counts as empty. NULL, or why it cannot be used: the gateway must not start then. */
MUST_CHECK const char *unsettled_open(struct unsettled *unsettled);

/* What was read and is not too old; valid until unsettled_done(). */
const struct unsettled_entry *unsettled_loaded(const struct unsettled *unsettled, size_t *count);

/* What was read is settled: the file is emptied. */
void unsettled_done(struct unsettled *unsettled);

/* To be saved. */
void unsettled_keep(struct unsettled *unsettled, const struct unsettled_entry *entry);

/* Writes what was kept, in place of what is there; nothing when that is nothing. A full disk or a power cut leaves lines out, or cuts the
 * last one: those leases end by themselves. */
void unsettled_save(struct unsettled *unsettled);

/* The parts without a file. Reading: all lines or -EINVAL, with the number of the first bad one; at most UNSETTLED_MAX. A last line without
 * its end is left out when there are others: 0, with its number; otherwise the number is 0. */
MUST_CHECK int unsettled_write_line(struct buf *out, const struct unsettled_entry *entry);
MUST_CHECK int unsettled_read_lines(struct slice text, struct unsettled_entry entries[UNSETTLED_MAX], size_t *count, size_t *bad_line);
