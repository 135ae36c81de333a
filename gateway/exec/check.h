/*
 * check - did all of a command's output arrive? Compares it with the record in the Sprite and fetches what is missing
 *
 * The platform is known to lose bytes of large outputs and to report success all the same. The shim reports how many bytes the
 * command wrote (exec/report.h). When they are many, when not as many arrived or when there is no report, a second command on the
 * same channel measures the record (sprites/record.h): its size, its digest, and the digest of as many bytes as had arrived.
 * What is missing is fetched in pieces by further commands, each with its own digest.
 *
 * Pure: check_ended() says whether to look, check_next() what to run, the caller runs it and feeds back what it printed.
 * Owns:       digests and the reply of the command that runs. The outputs are the caller's and outlive it.
 * Lifetime:   check_init … check_deinit.
 * Results:    0 or negative (no memory, OpenSSL): the caller gives up.
 * Bounds:     a reply of CHECK_PIECE bytes; the outputs' own caps.
 * Invariants: VERIFIED and RECOVERED only when every byte that is kept has been compared by digest with the record.
 */
#pragma once

#include "gateway/base/sha256.h"
#include "gateway/exec/output.h"

enum check_verdict {
	CHECK_NONE,       /* nothing is known: no record, or the command did not end */
	CHECK_UNVERIFIED, /* the same, and so much arrived that some may have been lost */
	CHECK_COUNTED,    /* as many bytes as the command wrote */
	CHECK_VERIFIED,   /* as the record has it */
	CHECK_RECOVERED,  /* bytes were missing and were fetched from the record */
	CHECK_INCOMPLETE, /* bytes are missing for good; output.lost says how many */
	CHECK_FAILED,     /* no finished record, or it contradicts what arrived; nor does a report say what is missing */
};

const char *check_verdict_name(enum check_verdict verdict);

/* Bytes are missing, or may be others. */
static inline bool check_is_damaged(enum check_verdict verdict)
{
	return verdict == CHECK_INCOMPLETE || verdict == CHECK_FAILED;
}

/* Well below the size from which streams are known to lose bytes; halved when even that does not arrive whole. */
#define CHECK_PIECE     ((size_t)256 * 1024)
#define CHECK_PIECE_MIN ((size_t)4 * 1024)

/* Half of the size from which streams are known to lose bytes. */
#define CHECK_SUSPECT ((uint64_t)256 * 1024)

#define CHECK_NONCE_LEN 32

struct check_record {
	uint64_t size;
	char whole[SHA256_HEX + 1], arrived[SHA256_HEX + 1]; /* digests of all, and of as many bytes as had arrived */
};

struct check {
	enum check_verdict verdict;
	struct output *streams; /* stdout, stderr */
	const char *recorded_as;
	struct sha256 digests[2];
	bool reported;
	uint64_t sizes[2];      /* as reported, else what arrived */
	bool skipped[2];        /* not all of it is digested: the middle is not kept either */
	bool measured;
	bool beyond_repair;     /* what was passed on is not how the record begins */
	struct check_record records[2];
	char nonce[CHECK_NONCE_LEN + 1]; /* in every reply, so that a leftover of the command is none */
	size_t piece;
	unsigned fetching;               /* stream of the running command */
	uint64_t wanted;                 /* bytes asked for */
	struct buf reply[2];
};

/* A command to run: arguments and input are valid until the next check_next(). */
struct check_command {
	const char *argv[8];
	size_t argc;
	struct slice input;
	char numbers[2][24];
	char line[CHECK_NONCE_LEN + 2];
};

/* `recorded_as`: the nonce that the shim was given; outlives it. */
MUST_CHECK int check_init(struct check *check, struct output streams[2], const char *recorded_as);
void check_deinit(struct check *check);

/* Output of the checked command, as it arrives and is fed to its output. */
MUST_CHECK int check_arrived(struct check *check, unsigned stream, struct slice bytes);

/* The command has ended and reported these sizes; NULL = it did not. True when its record has to be looked at: a stream has `least`
 * bytes or more, or not as many arrived. False: the verdict stands, since all is well or there is too much for a record. */
bool check_ended(struct check *check, const uint64_t sizes[2], uint64_t least);

/* There is no record to look at. */
void check_without_record(struct check *check);

/* What to run next; false when it is over and the verdict stands. */
bool check_next(struct check *check, struct check_command *command);

/* What it printed, and its end. */
MUST_CHECK int check_reply(struct check *check, unsigned stream, struct slice bytes);
MUST_CHECK int check_replied(struct check *check, unsigned exit_code);

/* No more can be run: settles the verdict. */
void check_give_up(struct check *check);
