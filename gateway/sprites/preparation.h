/*
 * preparation - in which order a Sprite is made ready, and what is tried again; no I/O
 *
 *   new         CLOSE_NETWORK → CHECK_NETWORK → DIAL → RUN → finished
 *   restorable  CLOSE_NETWORK → CHECK_NETWORK → DIAL → RUN → CHECKPOINT → MARK → finished
 *   wake        CHECK_NETWORK → DIAL → RUN → finished
 *   restore     RESTORE → CHECK_NETWORK → DIAL → MARK → finished
 *
 * One that others may have taken ends with CHECK_TAKEN → LABEL_TAKEN: after the first command, which has left the fence there, and before
 * any other can remove it.
 * MARK leaves a file that a restore must take away again, and says when the Sprite's first process began, which a restore must
 * change.
 * The network is closed before anything is dialled or run. A Sprite that is still waking (502, 503, no answer, a lost
 * channel), or a step that was throttled, is tried again after a pause that grows, or after the one it asks for, until the budget is used up. Three
 * times "there is no such Sprite" lead to CONFIRM: the service has given false 404s, so the list decides.
 *
 * Owns:       nothing; plain data.
 * Invariants: no PREPARATION_FINISH with PROVIDER_OK unless CHECK_NETWORK succeeded and then RUN or MARK did; nothing after
 *             a finish; nor, of one that is fenced, unless LABEL_TAKEN succeeded after that.
 */
#pragma once

#include "gateway/sprites/answers.h"

enum preparation_kind { PREPARATION_NEW, PREPARATION_RESTORABLE, PREPARATION_WAKE, PREPARATION_RESTORED };

enum preparation_step {
	PREPARATION_END,
	PREPARATION_CLOSE_NETWORK,
	PREPARATION_CHECK_NETWORK,
	PREPARATION_DIAL,
	PREPARATION_RUN,
	PREPARATION_CHECKPOINT,
	PREPARATION_MARK,
	PREPARATION_RESTORE,
	PREPARATION_CHECK_TAKEN, /* by the Sprite's labels, which nothing that runs in it can change */
	PREPARATION_LABEL_TAKEN,
	PREPARATION_CONFIRM, /* is it on the list? PROVIDER_OK: yes, PROVIDER_GONE: no */
};

struct preparation {
	enum preparation_kind kind;
	enum preparation_step step;
	bool fenced; /* to be set before the first step ends */
	uint64_t ends_us;
	unsigned failures; /* in a row */
	unsigned missing;  /* "no such Sprite" in a row */
};

struct preparation_action {
	enum { PREPARATION_DO, PREPARATION_WAIT, PREPARATION_FINISH } kind;
	uint64_t wait_us;        /* WAIT: then do `step` of the preparation */
	enum provider_code code; /* FINISH */
};

/* Then do its step. */
void preparation_init(struct preparation *preparation, enum preparation_kind kind, uint64_t budget_us, uint64_t now_us);

/* How the present step ended; what to do next. `random` is any number: pauses differ, so that many Sprites do not knock
 * at once. */
struct preparation_action preparation_step(struct preparation *preparation, const struct verdict *verdict, uint64_t now_us,
					   uint32_t random);
