#include "gateway/pool/sizing.h"

#define WARM_MISS  0.001
#define RESERVE    2
#define WARM_LEAST 1 /* a paused member costs next to nothing and spares the first caller a creation */

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

static size_t most(size_t a, size_t b)
{
	return a > b ? a : b;
}

static size_t less(size_t a, size_t b)
{
	return a > b ? a - b : 0;
}

size_t sizing_reserve(uint64_t create_limit)
{
	return create_limit > 2 * RESERVE ? RESERVE : 0;
}

/* Erlang-B of `stock`, from that of one less; 1 of none. */
static double erlang_b(size_t stock, double offered, double of_less)
{
	return offered * of_less / ((double)stock + offered * of_less);
}

double sizing_erlang_b(size_t stock, double offered)
{
	double b = 1;
	for (size_t n = 1; n <= stock; n++)
		b = erlang_b(n, offered, b);
	return b;
}

size_t sizing_stock(double offered, double miss, size_t most)
{
	if (offered <= 0)
		return 0;
	double b = 1;
	size_t stock = 0;
	while (stock < most && b > miss) {
		stock++;
		b = erlang_b(stock, offered, b);
	}
	return stock;
}

/* The next member saves wakes of this worth a second, and idles except while it is away being replaced. */
static bool is_worth_it(double rate, double offered, double saved)
{
	return SIZING_WAKE_USD * rate * saved > SIZING_IDLE_USD_PER_SECOND * (1 - offered * saved);
}

static size_t hot_size(double rate, double lead_s, size_t most)
{
	double offered = rate * lead_s, b = 1;
	size_t stock = 0;
	while (stock < most) {
		double next = erlang_b(stock + 1, offered, b);
		if (!is_worth_it(rate, offered, b - next))
			break;
		b = next;
		stock++;
	}
	return stock;
}

/* Creations for stock within this time; what was claimed just before may have used up a window of the limit already. Without a
 * known limit everything is created in time that has the time. */
static double made_within(const struct sizing_options *options, double seconds)
{
	double window_s = (double)options->create_window_us / 1000000;
	if (seconds <= 0)
		return 0;
	if (!options->create_limit)
		return UINT32_MAX;
	double made = (double)(options->create_limit - sizing_reserve(options->create_limit));
	return made * (seconds > window_s ? seconds / window_s : 1);
}

/* What stock survives each burst of the last day: the claims of a window less what could be created in time. */
static size_t burst_size(const struct sizing_options *options, const struct sizing_input *input)
{
	double stock = 0;
	for (size_t i = 0; i < DEMAND_WINDOWS; i++) {
		double made = made_within(options, demand_windows[i] - input->supply_s);
		double need = demand_most(input->demand, i) - made;
		if (need > stock)
			stock = need;
	}
	return (size_t)(stock + 0.999);
}

/* A burst on a pool at rest: whoever comes next finds one that is being woken already. Nothing is created ahead: that takes longer. */
static size_t burst_ahead(const struct sizing_options *options, const struct sizing_input *input)
{
	return options->warm ? demand_ahead(input->demand) : 0;
}

static size_t warm_size(const struct sizing_options *options, const struct sizing_input *input, size_t most)
{
	double rate = demand_slow(input->demand), fast = demand_fast(input->demand);
	if (fast > rate && !demand_bursts(input->demand))
		rate = fast;
	size_t steady = sizing_stock((rate + input->others_rate) * input->supply_s, WARM_MISS, most);
	size_t burst = burst_size(options, input);
	size_t stock = steady > burst ? steady : burst;
	return least(stock > WARM_LEAST ? stock : WARM_LEAST, most);
}

struct sizing sizing_decide(const struct sizing_options *options, const struct sizing_input *input)
{
	struct sizing sizing = {.hot = options->hot, .warm = options->warm};
	size_t room = less(options->max, input->leased);
	/* Without a warm tier what is taken is replaced by a creation. */
	double lead_s = options->warm ? input->wake_s : input->supply_s;
	if (sizing.hot == SIZING_AUTO)
		sizing.hot = most(hot_size(demand_fast(input->demand), lead_s, room), least(burst_ahead(options, input), room));
	if (options->running_limit)
		sizing.hot = least(sizing.hot, less(options->running_limit, input->leased));
	if (input->level >= SPEND_NO_IDLING)
		sizing.hot = 0;
	/* The stock is both tiers together. */
	if (sizing.warm == SIZING_AUTO)
		sizing.warm = less(warm_size(options, input, options->max), sizing.hot);
	if (options->warm_limit)
		sizing.warm = least(sizing.warm, options->warm_limit);
	if (input->level >= SPEND_NO_STOCK)
		sizing.warm = 0;
	return sizing;
}
