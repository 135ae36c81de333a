/*
 * The pool that Erlang's loss formula is about, on the same claims: what is taken is ordered again at once, one for one, whatever the
 * provider's limits, and whoever finds nothing is served from elsewhere. As many as the formula says for the rate that this trace had:
 * in both tiers together for a miss in a thousand during a creation and its preparation, of them hot as many as pay during a wake.
 */
#include "tests/bench/pool_sim/sim.h"

#define MISS 0.001

static struct {
	size_t hot, warm, waking, coming, leased;
	double awake_s[100]; /* when each that is being woken will be hot, soonest first */
} ideal;

/* --- how many --------------------------------------------------------------------------------- */

static double claims_a_second(void)
{
	size_t n = 0;
	for (size_t i = 0; i < sim.first_count; i++)
		n += sim.claims[i].at_s >= sim.shape->rest_s;
	return (double)n / (sim.shape->end_s - sim.shape->rest_s);
}

static size_t stock_for(double offered)
{
	size_t stock = 0;
	while (stock < sim.shape->max && sizing_erlang_b(stock, offered) > MISS)
		stock++;
	return stock;
}

/* One more while the wakes that it saves are worth more than its idling. */
static size_t hot_for(double rate, double offered, size_t stock)
{
	size_t hot = 0;
	for (; hot < stock; hot++) {
		double saved = sizing_erlang_b(hot, offered) - sizing_erlang_b(hot + 1, offered);
		if (SIZING_WAKE_USD * rate * saved <= SIZING_IDLE_USD_PER_SECOND * (1 - offered * saved))
			break;
	}
	return hot;
}

/* --- what happens ----------------------------------------------------------------------------- */

static void order(void)
{
	ideal.coming++;
	sim.figures.creates += sim_counts();
	events_push((struct event){.at_s = sim.now_s + trace_took(CREATE) + trace_took(PREPARE), .kind = MADE});
}

static void wake(double took_s)
{
	double ready_s = sim.now_s + took_s;
	size_t at = ideal.waking++;
	ideal.warm--;
	for (; at && ideal.awake_s[at - 1] > ready_s; at--)
		ideal.awake_s[at] = ideal.awake_s[at - 1];
	ideal.awake_s[at] = ready_s;
	events_push((struct event){.at_s = ready_s, .kind = AWAKE});
}

/* A claim takes the one that is ready first; its event finds nothing then. */
static double take_waking(void)
{
	double wait_s = ideal.awake_s[0] - sim.now_s;
	ideal.waking--;
	for (size_t i = 0; i < ideal.waking; i++)
		ideal.awake_s[i] = ideal.awake_s[i + 1];
	return wait_s;
}

static void fill(size_t wanted)
{
	while (ideal.warm && ideal.hot + ideal.waking < wanted)
		wake(trace_took(WAKE));
}

static double serve(struct claim *claim)
{
	claim->tier = POOL_TIER_WARM;
	if (ideal.hot) {
		ideal.hot--;
		claim->tier = POOL_TIER_HOT;
		order();
		return 0;
	}
	if (!ideal.waking && ideal.warm)
		wake(trace_took(WAKE));
	if (ideal.waking) {
		order();
		return take_waking();
	}
	claim->tier = POOL_TIER_COLD;
	sim.figures.creates += sim_counts();
	return trace_took(CREATE) + trace_took(PREPARE);
}

static void arrive(struct claim *claim)
{
	if (claim_goes_on(claim)) {
		sessions_serve(claim, true);
		return;
	}
	double wait_s = serve(claim);
	claim->added_s = wait_s + HOT_S;
	if (claim->session)
		sessions_begin(claim);
	events_push((struct event){.at_s = sim.now_s + wait_s + claim->service_s, .kind = END, .claim = claim});
}

static void handle(const struct event *event)
{
	switch (event->kind) {
	case ARRIVE:
		arrive(event->claim);
		break;
	case END:
		sim.figures.leased_s += event->claim->at_s >= sim.shape->rest_s ? event->claim->service_s : 0;
		if (event->claim->session)
			sessions_end(event->claim);
		break;
	case MADE:
		ideal.coming--;
		ideal.warm++;
		break;
	case AWAKE:
		if (ideal.waking && ideal.awake_s[0] <= sim.now_s) {
			take_waking();
			ideal.hot++;
		}
		break;
	default:
		sessions_handle(event);
	}
}

void erlang_run(void)
{
	double rate = claims_a_second(), offered = rate * (trace_mean(CREATE) + trace_mean(PREPARE));
	size_t stock = stock_for(offered), hot = hot_for(rate, rate * trace_mean(WAKE), stock);
	sim.figures.formula = sizing_erlang_b(stock, offered);
	sim.figures.stock = stock;
	events_push_claims();
	ideal.warm = stock;
	fill(hot);
	while (events_peek() && sim.now_s < sim.shape->end_s + 100) {
		struct event event = events_pop();
		double from_s = sim.now_s > sim.shape->rest_s ? sim.now_s : sim.shape->rest_s;
		if (event.at_s > from_s) {
			sim.figures.hot_idle_s += (double)ideal.hot * (event.at_s - from_s);
			sim.figures.running_idle_s += (double)(ideal.hot + ideal.waking + ideal.coming) * (event.at_s - from_s);
		}
		sim.now_s = event.at_s;
		handle(&event);
		fill(hot);
	}
}
