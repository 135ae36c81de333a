/*
 * answers - what an answer of the REST API means; no I/O
 *
 * Error bodies come in four shapes and as plain text (sprites contract 1.3); success bodies are read strictly. Nothing
 * here takes one 404 as proof that a Sprite is gone: the service has given false ones. Who needs proof compares with
 * the list.
 *
 * Owns:   nothing; a verdict is plain data.
 * Bounds: the detail is cut at ANSWERS_DETAIL bytes.
 */
#pragma once

#include "gateway/base/buf.h"
#include "gateway/json/json.h"
#include "gateway/sprites/observer.h"

#include <inttypes.h>

#define ANSWERS_DETAIL     256
#define ANSWERS_CHECKPOINT 32

/* The fields X-RateLimit-Limit, -Remaining and -Reset; UINT64_MAX = absent or no number. */
struct rate_fields {
	uint64_t limit, remaining, reset_ms; /* reset: from now on */
};

#define RATE_FIELDS_NONE {UINT64_MAX, UINT64_MAX, UINT64_MAX}

/* What came back. */
struct answer {
	unsigned status;         /* 0: none came; `failure` says why */
	uint64_t retry_after_ms; /* of the Retry-After field; 0 = none */
	struct rate_fields rate;
	struct slice body;
	const char *failure;
	const char *policy; /* of SPRITES_GET_POLICY: what was set; NULL = ANSWERS_POLICY */
};

/* Who has taken a Sprite last, by its label (docs/decisions/0012). */
struct taken_label {
	bool told;        /* the answer says which labels it has */
	uint64_t parking; /* 0 = it has no such label; UINT64_MAX = one that is not ours */
	uint64_t taker;
};

struct verdict {
	enum provider_code code; /* PROVIDER_GONE: this answer says so, which is no proof */
	bool not_ready;          /* 502, 503, no answer, PROVIDER_THROTTLED: the same may succeed a moment later */
	bool missing_quirk; /* a 500 that the service is known to give for missing Sprites (sprites contract 1.4) */
	/* retry_after_seconds, else Retry-After, else X-RateLimit-Reset when nothing remains, else 0. The last one depends on two
	 * clocks, so it counts for one window (a minute when the window is not said) at most. */
	uint64_t retry_after_ms;
	struct provider_limit
		limit; /* of a create, answered with success or the creation limit; of PROVIDER_CAPACITY; of a page of the list */
	unsigned status;
	struct taken_label taken; /* of SPRITES_GET and SPRITES_LABEL, with PROVIDER_OK */
	char checkpoint[ANSWERS_CHECKPOINT]; /* id of the one that was made; letters, digits, dot, hyphen, underscore */
	char detail[ANSWERS_DETAIL]; /* a plain sentence */
};

/* `name`: the Sprite asked for, which a created or found Sprite must carry. */
void answers_judge(struct verdict *verdict, enum sprites_call call, const char *name, const struct answer *answer);

/* The label itself: its start, then the numbers in hexadecimal. */
#define ANSWERS_TAKEN        "taken="
#define ANSWERS_TAKEN_FORMAT ANSWERS_TAKEN "%016" PRIx64 "-%016" PRIx64

/* The policy of a Sprite that nobody has claimed: no network at all. */
#define ANSWERS_POLICY "{\"rules\":[{\"domain\":\"*\",\"action\":\"deny\"}]}"

/* The policy that opens a network for a profile: names of domains (also *.suffix), separated by blanks, and the word `defaults`, which is
 * the provider's own list. -EINVAL for anything else, and for nothing: no rules would be no policy. */
MUST_CHECK int answers_open_policy(struct slice profile, struct buf *out);

/* One page of the list, owned by the caller (json_decref): an object whose "sprites" is an array of objects with string
 * names. *token is the next page's, empty at the end; borrowed from the page. NULL and a verdict when it is not that.
 */
json_t *answers_page(struct verdict *verdict, const struct answer *answer, struct slice *token);

/* A verdict without an answer. */
void answers_fail(struct verdict *verdict, enum provider_code code, const char *detail);
