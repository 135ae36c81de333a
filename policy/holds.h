/*
 * holds - leases whose commands run here or wait for their input: renewed while they do, ended when an operator wants it
 *
 * Redis is asked every 300 ms, in one command for all of them, and only while there are any. What an operator wants stays in Redis for
 * longer than a lease can last, so a connection that was away misses nothing. A lease for more than admit.lua covers at first is renewed
 * every 20 s. One that is found to have ended, because Redis or we were away for more than a minute, is no right to run.
 *
 * Owns:       its timer, its question and the renewals under way; the holds are their makers'.
 * Lifetime:   holds_init, holds_stop, then its timer is closed; the link must have been freed first (it ends the question).
 * Runs on:    the link's loop.
 * Re-entry:   on_end runs from the loop only; it may let go of its own hold, of no other.
 * Bounds:     one question, and one renewal of each lease, under way.
 */
#pragma once

#include "policy/admission.h"
#include "policy/link.h"

struct holds {
	struct link *link;
	struct admission_hold *list;
	uv_loop_t *loop;
	uv_timer_t timer;
	struct link_command question;
	bool asking, stopped;
};

void holds_init(struct holds *holds, uv_loop_t *loop, struct link *link);
void holds_add(struct holds *holds, struct admission_hold *hold);
void holds_remove(struct holds *holds, struct admission_hold *hold);

/* Nothing is asked and nobody told from now on. */
void holds_stop(struct holds *holds);
