#include "tests/bench/pool_sim/sim.h"

#include <stdlib.h>

#define CHANNEL_S 60  /* as in gateway/exec/sessions.c */
#define LINGER_S  35  /* likewise */
#define IDLE_S    900 /* SESSION_IDLE_SECONDS */

static struct claim *live[1000]; /* the first command of each */
static size_t count;

void sessions_begin(struct claim *first)
{
	if (count == ARRAY_LEN(live))
		abort();
	live[count++] = first;
	first->busy = true;
}

/* How long after a command the next one comes decides what it finds. */
static double ready_after_s(const struct claim *first)
{
	double idle_s = sim.now_s - first->used_s;
	if (idle_s < CHANNEL_S)
		return 0;
	return idle_s < CHANNEL_S + PAUSE_S ? DIAL_S : trace_took(WAKE);
}

void sessions_serve(struct claim *claim, bool at_once)
{
	double wait_s = at_once ? 0 : ready_after_s(claim->session);
	claim->session->busy = true;
	claim->at_s = sim.now_s;
	claim->added_s = wait_s + HOT_S;
	claim->tier = wait_s > 0 ? POOL_TIER_WARM : POOL_TIER_HOT;
	events_push((struct event){.at_s = sim.now_s + wait_s + claim->service_s, .kind = END, .claim = claim});
}

void sessions_end(struct claim *claim)
{
	struct claim *first = claim->session;
	first->busy = false;
	first->used_s = sim.now_s;
	events_push((struct event){.at_s = sim.now_s + CHANNEL_S + LINGER_S, .kind = PAUSED, .claim = first});
	events_push((struct event){.at_s = sim.now_s + IDLE_S, .kind = FORGOTTEN, .claim = first});
	if (claim->next)
		events_push((struct event){.at_s = sim.now_s + claim->next->think_s, .kind = ARRIVE, .claim = claim->next});
}

static void removed(const struct claim *first)
{
	for (size_t i = 0; i < count; i++)
		if (live[i] == first)
			live[i--] = live[--count];
}

void sessions_handle(const struct event *event)
{
	const struct claim *first = event->claim;
	if (event->kind == REMOVED)
		removed(first);
	else if (event->kind == FORGOTTEN && !first->busy && event->at_s >= first->used_s + IDLE_S)
		events_push((struct event){.at_s = sim.now_s + trace_took(DESTROY), .kind = REMOVED, .claim = event->claim});
}

void sessions_integrate(double from_s, double to_s)
{
	for (size_t i = 0; i < count; i++) {
		double paused_s = live[i]->used_s + CHANNEL_S + PAUSE_S, until_s = paused_s < to_s ? paused_s : to_s;
		if (live[i]->busy)
			sim.figures.leased_s += to_s - from_s;
		else if (until_s > from_s)
			sim.figures.running_idle_s += until_s - from_s;
	}
}

static size_t used_within(double seconds)
{
	size_t n = 0;
	for (size_t i = 0; i < count; i++)
		n += live[i]->busy || sim.now_s < live[i]->used_s + seconds;
	return n;
}

size_t sessions_total(void)
{
	return count;
}

size_t sessions_busy(void)
{
	return used_within(0);
}

size_t sessions_counted(void)
{
	return used_within(CHANNEL_S + LINGER_S);
}

size_t sessions_running(void)
{
	return used_within(CHANNEL_S + PAUSE_S);
}
