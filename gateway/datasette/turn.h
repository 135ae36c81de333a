/*
 * turn - something to do once, at the end of the present loop turn or in the next one, which then does not sleep
 *
 * Owns:     two loop handles.
 * Lifetime: turn_init … turn_close (asynchronous: on_closed runs when the loop has let go of the memory).
 */
#pragma once

#include "gateway/base/attr.h"

#include <stdbool.h>
#include <uv.h>

struct turn {
	uv_check_t check;
	uv_idle_t idle; /* keeps the loop from sleeping while something is asked for */
	void (*run)(void *ctx);
	void *ctx;
	void (*on_closed)(void *ctx);
	unsigned open;
	bool asked;
};

void turn_init(struct turn *turn, uv_loop_t *loop, void (*run)(void *ctx), void *ctx);
void turn_ask(struct turn *turn);
void turn_close(struct turn *turn, void (*on_closed)(void *ctx));
