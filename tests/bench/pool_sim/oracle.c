/*
 * The oracles know every claim beforehand, so all that is prepared is woken just in time: what they cannot serve at once nobody can under
 * the same limits. They create whenever they may, and a restored Sprite of theirs serves anybody.
 */
#include "tests/bench/pool_sim/sim.h"

#define BURST_S 1 /* claims that are no further apart are one burst */

static struct {
	size_t stock, coming, leased, leaving, first, last; /* waiters are claims first … last - 1 */
	size_t waking, awake, known;                         /* at rest: of claims up to known - 1 it knows */
	bool restores, rests, asked;
} oracle;

static size_t alive(void)
{
	return oracle.stock + oracle.coming + oracle.leased + oracle.leaving + oracle.waking + oracle.awake + sessions_total();
}

/* What was used runs until it is gone; of sessions, what is in use. */
static size_t running(void)
{
	return oracle.leased + oracle.leaving + oracle.waking + oracle.awake + sessions_busy();
}

static void create(void)
{
	while (alive() < sim.shape->max) {
		if (!creation_take()) {
			if (!oracle.asked)
				events_push((struct event){.at_s = sim.now_s + creation_wait_s() + 1e-6, .kind = TOKEN});
			oracle.asked = true;
			return;
		}
		sim.figures.creates += sim_counts();
		oracle.coming++;
		events_push((struct event){.at_s = sim.now_s + trace_took(CREATE) + trace_took(PREPARE), .kind = MADE});
	}
}

/* Those that it knows of, each of which needs one. */
static void wake(void)
{
	if (oracle.known < oracle.last)
		oracle.known = oracle.last;
	while (oracle.known < sim.first_count && oracle.last &&
	       sim.claims[oracle.known].at_s <= sim.claims[oracle.known - 1].at_s + BURST_S)
		oracle.known++;
	while (oracle.rests && oracle.stock && running() < sim.shape->running_limit &&
	       oracle.waking + oracle.awake < oracle.known - oracle.first) {
		oracle.stock--;
		oracle.waking++;
		events_push((struct event){.at_s = sim.now_s + trace_took(WAKE), .kind = AWAKE});
	}
}

static void grant(struct claim *claim)
{
	if (claim->session)
		sessions_begin(claim);
	else
		oracle.leased++;
	claim->added_s = sim.now_s - claim->at_s + HOT_S;
	claim->tier = sim.now_s > claim->at_s ? POOL_TIER_COLD : POOL_TIER_HOT;
	events_push((struct event){.at_s = sim.now_s + claim->service_s, .kind = END, .claim = claim});
}

static void serve(void)
{
	size_t *ready = oracle.rests ? &oracle.awake : &oracle.stock;
	for (; oracle.first < oracle.last; oracle.first++) {
		struct claim *claim = &sim.claims[oracle.first];
		if (sim.now_s > claim->at_s + DEADLINE_S) {
			claim->added_s = -1;
			continue;
		}
		if (!*ready || (!oracle.rests && running() >= sim.shape->running_limit))
			return;
		--*ready;
		grant(claim);
	}
}

static void arrive(struct claim *claim)
{
	if (claim_goes_on(claim))
		sessions_serve(claim, true);
	else
		oracle.last++;
}

static void used(void)
{
	oracle.leased--;
	sim.figures.restores += oracle.restores && sim_counts();
	if (oracle.restores)
		oracle.coming++;
	else
		oracle.leaving++;
	events_push((struct event){.at_s = sim.now_s + trace_took(oracle.restores ? RESTORE : DESTROY),
				   .kind = oracle.restores ? MADE : FREED});
}

static void end(struct claim *claim)
{
	sim.figures.leased_s += claim->at_s >= sim.shape->rest_s ? claim->service_s : 0;
	if (claim->session)
		sessions_end(claim);
	else
		used();
}

static void handle(const struct event *event)
{
	switch (event->kind) {
	case ARRIVE:
		arrive(event->claim);
		break;
	case END:
		end(event->claim);
		break;
	case MADE:
		oracle.coming--;
		oracle.stock++;
		break;
	case FREED:
		oracle.leaving--;
		break;
	case TOKEN:
		oracle.asked = false;
		break;
	case AWAKE:
		oracle.waking--;
		oracle.awake++;
		break;
	case PAUSED:
	case FORGOTTEN:
	case REMOVED:
		sessions_handle(event);
		break;
	case OUTCOME:
		break;
	}
}

void oracle_run(bool restores, bool rests)
{
	oracle.restores = restores;
	oracle.rests = rests;
	events_push_claims();
	create();
	while (events_peek()) {
		struct event event = events_pop();
		sim.now_s = event.at_s;
		handle(&event);
		serve();
		wake();
		create();
		sim_measure_alive(alive(), running());
		if (event.kind == TOKEN && sim.now_s > sim.shape->end_s + 100)
			break;
	}
}
