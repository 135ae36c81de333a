#include "tests/bench/pool_sim/sim.h"

#include <stdlib.h>

#define CREATE_LIMIT_MAX 100

/* --- a heap by time --------------------------------------------------------------------------- */

static struct event heap[MAX_EVENTS];
static size_t heap_count;
static uint64_t order;

static bool before(const struct event *a, const struct event *b)
{
	return a->at_s < b->at_s || (a->at_s == b->at_s && a->order < b->order);
}

static void swap(struct event *a, struct event *b)
{
	struct event kept = *a;
	*a = *b;
	*b = kept;
}

void events_push(struct event event)
{
	if (heap_count == MAX_EVENTS)
		abort();
	event.order = order++;
	size_t at = heap_count++;
	heap[at] = event;
	for (; at && before(&heap[at], &heap[(at - 1) / 2]); at = (at - 1) / 2)
		swap(&heap[at], &heap[(at - 1) / 2]);
}

const struct event *events_peek(void)
{
	return heap_count ? &heap[0] : NULL;
}

struct event events_pop(void)
{
	struct event first = heap[0];
	heap[0] = heap[--heap_count];
	for (size_t at = 0;;) {
		size_t least = at, left = 2 * at + 1;
		for (size_t child = left; child < left + 2 && child < heap_count; child++)
			if (before(&heap[child], &heap[least]))
				least = child;
		if (least == at)
			return first;
		swap(&heap[at], &heap[least]);
		at = least;
	}
}

void events_push_claims(void)
{
	for (size_t i = 0; i < sim.first_count; i++)
		events_push((struct event){.at_s = sim.claims[i].at_s, .kind = ARRIVE, .claim = &sim.claims[i]});
}

/* --- the provider's creation limit: so many in any minute ------------------------------------- */

static struct {
	double at_s[CREATE_LIMIT_MAX]; /* the last creations; a ring */
	size_t made;
} creations;

double creation_wait_s(void)
{
	unsigned limit = sim.shape->create_limit;
	if (creations.made < limit)
		return 0;
	double free_s = creations.at_s[creations.made % limit] + 60;
	return free_s > sim.now_s ? free_s - sim.now_s : 0;
}

bool creation_take(void)
{
	if (creation_wait_s() > 0)
		return false;
	creations.at_s[creations.made++ % sim.shape->create_limit] = sim.now_s;
	return true;
}
