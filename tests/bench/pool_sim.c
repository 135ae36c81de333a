/*
 * The pool's own core in virtual time, against a provider made of latencies and limits.
 *
 *   pool_sim SHAPE POLICY SEED   one run; its figures as one line of JSON
 *
 * SHAPE is a row of `shapes`; POLICY is auto, restore, fixed:<hot>, none, oracle, oracle-restore or oracle-at-rest. The oracles know every
 * claim beforehand, so all that is prepared is woken just in time: what they cannot serve at once nobody can under the same limits. They
 * create whenever they may, and a restored Sprite of theirs serves anybody. oracle-at-rest knows a burst only from its first claim on:
 * it wakes at that moment what all of it will need. Nobody is faster who keeps nothing running between bursts.
 *
 * The first `rest_s` seconds of a shape fill the pool and teach it; they are not counted.
 */
#include "gateway/pool/machine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#define SECOND           1000000.0
#define HOUR             3600.0
#define DEADLINE_S       30
#define HOT_S            0.005 /* what even a hot claim adds */
#define DIAL_S           0.1
#define PAUSE_S          30    /* without an open channel the provider pauses a Sprite after this */
#define TENANTS_MAX      10
#define CREATE_LIMIT_MAX 100
#define MEMBERS_MAX      (100 + MACHINE_LEFTOVERS)
#define WAIT_USD         0.0075 /* a second's wait; SIZING_WAKE_USD is what a wake of 0.4 s is worth */
#define MAX_CLAIMS       200000
#define MAX_EVENTS       400000

/* --- random numbers --------------------------------------------------------------------------- */

static uint64_t seed;

static double uniform(void)
{
	uint64_t z = (seed += UINT64_C(0x9e3779b97f4a7c15));
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return (double)((z ^ z >> 31) >> 11) / 9007199254740992.0;
}

static double exponential(double mean)
{
	return -mean * log(1 - uniform());
}

struct latency {
	double median_s, p99_s;
};

/* Lognormal. */
static double latency(struct latency l)
{
	double normal = sqrt(-2 * log(1 - uniform())) * cos(2 * M_PI * uniform());
	return l.median_s * exp(normal * log(l.p99_s / l.median_s) / 2.326);
}

static const struct latency create_latency = {1.5, 5}, prepare_latency = {0.8, 3}, wake_latency = {0.25, 0.9}, restore_latency = {1.5, 5},
			    destroy_latency = {0.3, 1};

/* --- claims ----------------------------------------------------------------------------------- */

struct claim {
	struct machine_waiter waiter;
	double at_s, service_s, added_s; /* added: before the command began; negative = refused */
	unsigned tenant;
	enum pool_tier tier;
	struct pool_member *member;
};

struct shape {
	const char *name;
	void (*claims)(const struct shape *shape);
	double rest_s, end_s, service_s;
	double rate;      /* claims a second */
	double every_s;   /* between bursts */
	unsigned size[2]; /* of a burst, least and most */
	double spread_s;  /* how long a burst takes */
	unsigned tenants, create_limit, running_limit, max;
};

static struct claim *claims;
static size_t claim_count;

static void come(double at_s, unsigned tenant, double service_s)
{
	if (claim_count == MAX_CLAIMS)
		abort();
	claims[claim_count++] = (struct claim){.at_s = at_s, .tenant = tenant, .service_s = exponential(service_s)};
}

static unsigned any_tenant(const struct shape *shape)
{
	return (unsigned)(uniform() * shape->tenants);
}

static void poisson(const struct shape *shape)
{
	for (double t = exponential(1 / shape->rate); t < shape->end_s; t += exponential(1 / shape->rate))
		come(t, any_tenant(shape), shape->service_s);
}

static int by_time(const void *a, const void *b)
{
	double x = ((const struct claim *)a)->at_s, y = ((const struct claim *)b)->at_s;
	return (x > y) - (x < y);
}

static void bursts(const struct shape *shape)
{
	for (double t = shape->every_s; t < shape->end_s; t += shape->every_s * (0.75 + 0.5 * uniform())) {
		unsigned n = shape->size[0] + (unsigned)(uniform() * (shape->size[1] - shape->size[0] + 1));
		for (unsigned i = 0; i < n; i++)
			come(t + uniform() * shape->spread_s, any_tenant(shape), shape->service_s);
	}
	qsort(claims, claim_count, sizeof *claims, by_time);
}

/* A raised cosine with this peak, one day in four hours. */
static void diurnal(const struct shape *shape)
{
	for (double t = exponential(1 / shape->rate); t < shape->end_s; t += exponential(1 / shape->rate))
		if (uniform() < (1 - cos(2 * M_PI * t / (4 * HOUR))) / 2)
			come(t, any_tenant(shape), shape->service_s);
}

/* Tenant 0 wants all there is, nine others a little. */
static void hog(const struct shape *shape)
{
	for (double t = exponential(1 / shape->rate); t < shape->end_s; t += exponential(1 / shape->rate))
		come(t, 0, 4 * shape->service_s);
	for (unsigned mouse = 1; mouse < shape->tenants; mouse++)
		for (double t = exponential(120); t < shape->end_s; t += exponential(120))
			come(t, mouse, shape->service_s);
	qsort(claims, claim_count, sizeof *claims, by_time);
}

#define LIMITS .create_limit = 10, .running_limit = 20, .max = 40
#define HOURS  .rest_s = HOUR, .end_s = 5 * HOUR, .service_s = 5

static const struct shape shapes[] = {
	{"poisson-2", poisson, HOURS, .rate = 2 / 60.0, .tenants = 3, LIMITS},
	{"poisson-6", poisson, HOURS, .rate = 6 / 60.0, .tenants = 3, LIMITS},
	{"poisson-9", poisson, HOURS, .rate = 9 / 60.0, .tenants = 3, LIMITS},
	{"bursts", bursts, HOURS, .every_s = 300, .size = {6, 14}, .spread_s = 3, .tenants = 3, LIMITS},
	{"burst-20", bursts, HOURS, .every_s = 1200, .size = {20, 20}, .spread_s = 1, .tenants = 1, LIMITS},
	{"burst-20-of-10", bursts, HOURS, .every_s = 1200, .size = {20, 20}, .spread_s = 1, .tenants = 1, .create_limit = 10,
	 .running_limit = 10, .max = 40},
	{"diurnal", diurnal, HOURS, .rate = 15 / 60.0, .tenants = 5, LIMITS},
	{"herd", bursts, HOURS, .every_s = 1800, .size = {40, 40}, .spread_s = 0.3, .tenants = 3, LIMITS},
	{"hog", hog, HOURS, .rate = 60 / 60.0, .tenants = 10, .create_limit = 60, .running_limit = 20, .max = 20},
};

/* --- the provider's creation limit: so many in any minute ------------------------------------- */

static struct {
	double at_s[CREATE_LIMIT_MAX]; /* the last creations; a ring */
	size_t made;
} creations;

/* Seconds until one may be created. */
static double creation_wait_s(const struct shape *shape, double now_s)
{
	if (creations.made < shape->create_limit)
		return 0;
	double free_s = creations.at_s[creations.made % shape->create_limit] + 60;
	return free_s > now_s ? free_s - now_s : 0;
}

static bool creation_take(const struct shape *shape, double now_s)
{
	if (creation_wait_s(shape, now_s) > 0)
		return false;
	creations.at_s[creations.made++ % shape->create_limit] = now_s;
	return true;
}

/* --- events ----------------------------------------------------------------------------------- */

enum kind { ARRIVE, OUTCOME, END, MADE, FREED, TOKEN, AWAKE };

struct event {
	double at_s;
	uint64_t order;
	enum kind kind;
	struct claim *claim;
	struct machine_event outcome;
};

static struct event *heap;
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

static void push(struct event event)
{
	if (heap_count == MAX_EVENTS)
		abort();
	event.order = order++;
	size_t at = heap_count++;
	heap[at] = event;
	for (; at && before(&heap[at], &heap[(at - 1) / 2]); at = (at - 1) / 2)
		swap(&heap[at], &heap[(at - 1) / 2]);
}

static struct event pop(void)
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

/* --- figures ---------------------------------------------------------------------------------- */

static struct {
	double hot_idle_s, running_idle_s, leased_s, target_s, counted_s;
	uint64_t creates, refused_creates, restores, destroys;
	size_t alive, max_alive, running, max_running;
} figures;

static void measure_alive(size_t alive, size_t running)
{
	figures.max_alive = alive > figures.max_alive ? alive : figures.max_alive;
	figures.max_running = running > figures.max_running ? running : figures.max_running;
}

/* --- the pool under test ---------------------------------------------------------------------- */

static struct machine machine;
static const struct shape *shape;
static double now_s;

static void outcome_at(double after_s, enum machine_event_type type, struct pool_member *member, enum provider_code code, double retry_s)
{
	push((struct event){.at_s = now_s + after_s,
			    .kind = OUTCOME,
			    .outcome = {.type = type, .member = member, .code = code, .retry_after_ms = (uint64_t)(retry_s * 1000)}});
}

static void do_create(struct pool_member *member)
{
	if (!creation_take(shape, now_s)) {
		figures.refused_creates += now_s >= shape->rest_s;
		outcome_at(0.1, MACHINE_CREATED, member, PROVIDER_RATE_LIMIT, creation_wait_s(shape, now_s));
		return;
	}
	figures.creates += now_s >= shape->rest_s;
	outcome_at(latency(create_latency), MACHINE_CREATED, member, PROVIDER_OK, 0);
}

static double parked_s[MEMBERS_MAX]; /* when each member was last parked */

static bool lingers(const struct pool_member *member)
{
	return now_s < parked_s[member - machine.roster.slots] + PAUSE_S;
}

static void do_grant(const struct machine_action *action)
{
	struct claim *claim = CONTAINER_OF(action->waiter, struct claim, waiter);
	claim->member = action->member;
	claim->tier = action->tier;
	claim->added_s = now_s - claim->at_s + HOT_S;
	push((struct event){.at_s = now_s + claim->service_s, .kind = END, .claim = claim});
}

static void carry_out(const struct machine_action *action)
{
	struct pool_member *member = action->member;
	switch (action->type) {
	case MACHINE_DO_LIST:
		push((struct event){.at_s = now_s + 0.1, .kind = OUTCOME, .outcome = {.type = MACHINE_LISTED}});
		break;
	case MACHINE_DO_CREATE:
		do_create(member);
		break;
	case MACHINE_DO_PREPARE:
		outcome_at(latency(prepare_latency), MACHINE_PREPARED, member, PROVIDER_OK, 0);
		break;
	case MACHINE_DO_WAKE:
		/* One that still runs needs only dialling. */
		outcome_at(lingers(member) ? DIAL_S : latency(wake_latency), MACHINE_PREPARED, member, PROVIDER_OK, 0);
		break;
	case MACHINE_DO_RESTORE:
		figures.restores += now_s >= shape->rest_s;
		outcome_at(latency(restore_latency), MACHINE_RESTORED, member, PROVIDER_OK, 0);
		break;
	case MACHINE_DO_DESTROY:
		outcome_at(latency(destroy_latency), MACHINE_DESTROYED, member, PROVIDER_OK, 0);
		break;
	case MACHINE_DO_GRANT:
		do_grant(action);
		break;
	case MACHINE_DO_REFUSE:
		CONTAINER_OF(action->waiter, struct claim, waiter)->added_s = -1;
		break;
	case MACHINE_DO_CLOSE:
		if (member->state == POOL_WARM)
			parked_s[member - machine.roster.slots] = now_s;
		break;
	case MACHINE_DO_STOPPED:
	case MACHINE_DO_RESERVE:
	case MACHINE_DO_TAKE:
	case MACHINE_DO_NOTE:
	case MACHINE_DO_FORGET:
	case MACHINE_DO_ADOPT:
	case MACHINE_DO_REVOKE:
	case MACHINE_DO_ABANDON:
		break;
	}
}

static size_t ready_or_on_way(void)
{
	const size_t *counts = machine.roster.counts;
	return counts[POOL_HOT] + counts[POOL_CREATING] + counts[POOL_PREPARING] + counts[POOL_RECYCLING];
}

/* What has run since the last event. */
static void integrate(double to_s)
{
	double from_s = now_s > shape->rest_s ? now_s : shape->rest_s, passed_s = to_s - from_s;
	now_s = to_s;
	if (passed_s <= 0)
		return;
	const size_t *counts = machine.roster.counts;
	const struct pool_member *member;
	double lingering_s = 0;
	DL_FOREACH (machine.roster.lists[POOL_WARM], member) {
		double paused_s = parked_s[member - machine.roster.slots] + PAUSE_S;
		lingering_s += paused_s > to_s ? passed_s : paused_s > from_s ? paused_s - from_s : 0;
	}
	figures.counted_s += passed_s;
	figures.hot_idle_s += (double)counts[POOL_HOT] * passed_s;
	figures.running_idle_s += lingering_s + (double)ready_or_on_way() * passed_s;
	figures.leased_s += (double)counts[POOL_LEASED] * passed_s;
	figures.target_s += (double)(machine.target.hot + machine.target.warm) * passed_s;
}

static void step(struct machine_event event)
{
	struct machine_action action;
	machine_step(&machine, (uint64_t)(now_s * SECOND), &event);
	while (machine_next_action(&machine, &action))
		carry_out(&action);
	const struct pool_member *member;
	size_t running = machine.roster.counts[POOL_LEASED] + machine.roster.counts[POOL_DESTROYING] + ready_or_on_way();
	DL_FOREACH (machine.roster.lists[POOL_WARM], member)
		running += lingers(member);
	measure_alive(roster_total(&machine.roster), running);
}

static void handle(struct event *event)
{
	if (event->kind == ARRIVE) {
		event->claim->waiter =
			(struct machine_waiter){.tenant = event->claim->tenant, .deadline_us = (uint64_t)((now_s + DEADLINE_S) * SECOND)};
		step((struct machine_event){.type = MACHINE_CLAIM, .waiter = &event->claim->waiter});
	} else if (event->kind == END) {
		step((struct machine_event){.type = MACHINE_RELEASE, .member = event->claim->member});
	} else {
		step(event->outcome);
	}
}

static int run_machine(const struct machine_options *options)
{
	if (machine_init(&machine, options) < 0)
		return -1;
	for (size_t i = 0; i < claim_count; i++)
		push((struct event){.at_s = claims[i].at_s, .kind = ARRIVE, .claim = &claims[i]});
	now_s = 1e-3;
	step((struct machine_event){.type = MACHINE_START});
	while (heap_count && now_s < shape->end_s + 100) {
		double due_s = (double)machine_next_due(&machine) / SECOND;
		if (due_s < heap[0].at_s) {
			integrate(due_s > now_s ? due_s : now_s);
			now_s += 1e-6; /* rounding must not put a tick before its time */
			step((struct machine_event){.type = MACHINE_TICK});
			continue;
		}
		struct event event = pop();
		integrate(event.at_s > now_s ? event.at_s : now_s);
		handle(&event);
	}
	int impossible = (int)machine.roster.impossible;
	machine_deinit(&machine);
	return impossible ? -1 : 0;
}

/* --- the oracles ------------------------------------------------------------------------------ */

#define BURST_S 1 /* claims that are no further apart are one burst */

static struct {
	size_t stock, coming, leased, leaving, first, last; /* waiters are claims first … last - 1 */
	size_t waking, awake, known;                         /* at rest: of claims up to known - 1 it knows */
	bool restores, rests, asked;
} oracle;

static size_t oracle_alive(void)
{
	return oracle.stock + oracle.coming + oracle.leased + oracle.leaving + oracle.waking + oracle.awake;
}

/* What was used runs until it is gone. */
static size_t oracle_running(void)
{
	return oracle.leased + oracle.leaving + oracle.waking + oracle.awake;
}

static void oracle_create(void)
{
	while (oracle_alive() < shape->max) {
		if (!creation_take(shape, now_s)) {
			if (!oracle.asked)
				push((struct event){.at_s = now_s + creation_wait_s(shape, now_s) + 1e-6, .kind = TOKEN});
			oracle.asked = true;
			return;
		}
		figures.creates += now_s >= shape->rest_s;
		oracle.coming++;
		push((struct event){.at_s = now_s + latency(create_latency) + latency(prepare_latency), .kind = MADE});
	}
}

/* Those that it knows of, each of which needs one. */
static void oracle_wake(void)
{
	if (oracle.known < oracle.last)
		oracle.known = oracle.last;
	while (oracle.known < claim_count && oracle.last && claims[oracle.known].at_s <= claims[oracle.known - 1].at_s + BURST_S)
		oracle.known++;
	while (oracle.rests && oracle.stock && oracle_running() < shape->running_limit &&
	       oracle.waking + oracle.awake < oracle.known - oracle.first) {
		oracle.stock--;
		oracle.waking++;
		push((struct event){.at_s = now_s + latency(wake_latency), .kind = AWAKE});
	}
}

static void oracle_serve(void)
{
	size_t *ready = oracle.rests ? &oracle.awake : &oracle.stock;
	while (oracle.first < oracle.last) {
		struct claim *claim = &claims[oracle.first];
		if (now_s > claim->at_s + DEADLINE_S) {
			claim->added_s = -1;
			oracle.first++;
			continue;
		}
		if (!*ready || (!oracle.rests && oracle_running() >= shape->running_limit))
			return;
		oracle.first++;
		--*ready;
		oracle.leased++;
		claim->added_s = now_s - claim->at_s + HOT_S;
		claim->tier = now_s > claim->at_s ? POOL_TIER_COLD : POOL_TIER_HOT;
		push((struct event){.at_s = now_s + claim->service_s, .kind = END, .claim = claim});
	}
}

static void oracle_handle(const struct event *event)
{
	switch (event->kind) {
	case ARRIVE:
		oracle.last++;
		break;
	case END:
		oracle.leased--;
		figures.leased_s += event->claim->at_s >= shape->rest_s ? event->claim->service_s : 0;
		figures.restores += oracle.restores && now_s >= shape->rest_s;
		if (oracle.restores)
			oracle.coming++;
		else
			oracle.leaving++;
		push((struct event){.at_s = now_s + latency(oracle.restores ? restore_latency : destroy_latency),
				    .kind = oracle.restores ? MADE : FREED});
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
	case OUTCOME:
		break;
	}
}

static void run_oracle(bool restores, bool rests)
{
	oracle.restores = restores;
	oracle.rests = rests;
	for (size_t i = 0; i < claim_count; i++)
		push((struct event){.at_s = claims[i].at_s, .kind = ARRIVE, .claim = &claims[i]});
	oracle_create();
	while (heap_count) {
		struct event event = pop();
		now_s = event.at_s;
		oracle_handle(&event);
		oracle_serve();
		oracle_wake();
		oracle_create();
		measure_alive(oracle_alive(), oracle_running());
		if (event.kind == TOKEN && now_s > shape->end_s + 100)
			break;
	}
}

/* --- results ---------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double percentile(const double *sorted, size_t n, double share)
{
	return n ? sorted[(size_t)(share * (double)(n - 1) + 0.5)] * 1000 : 0;
}

static double *added;

static void print_added(const char *name, bool (*counts)(const struct claim *claim))
{
	size_t n = 0;
	for (size_t i = 0; i < claim_count; i++)
		if (claims[i].at_s >= shape->rest_s && claims[i].added_s > 0 && counts(&claims[i]))
			added[n++] = claims[i].added_s;
	qsort(added, n, sizeof *added, by_value);
	printf("\"%s\":{\"n\":%zu,\"p50\":%.1f,\"p99\":%.1f,\"p999\":%.1f},", name, n, percentile(added, n, 0.5),
	       percentile(added, n, 0.99), percentile(added, n, 0.999));
}

static bool any_claim(const struct claim *claim)
{
	return claim->added_s > 0;
}

static bool of_hot(const struct claim *claim)
{
	return claim->tier == POOL_TIER_HOT;
}

static bool of_warm(const struct claim *claim)
{
	return claim->tier == POOL_TIER_WARM;
}

static bool of_cold(const struct claim *claim)
{
	return claim->tier == POOL_TIER_COLD;
}

static bool of_mouse(const struct claim *claim)
{
	return claim->tenant > 0;
}

/* Jain's index of the share of its claims that each tenant got within a second. */
static double jain(void)
{
	double asked[TENANTS_MAX] = {0}, got[TENANTS_MAX] = {0}, sum = 0, squares = 0;
	for (size_t i = 0; i < claim_count; i++) {
		if (claims[i].at_s < shape->rest_s)
			continue;
		asked[claims[i].tenant]++;
		got[claims[i].tenant] += claims[i].added_s > 0 && claims[i].added_s < 1;
	}
	for (unsigned i = 0; i < shape->tenants; i++) {
		double share = asked[i] > 0 ? got[i] / asked[i] : 1;
		sum += share;
		squares += share * share;
	}
	return squares > 0 ? sum * sum / (shape->tenants * squares) : 0;
}

static void print_results(void)
{
	double asked = 0, refused = 0, waited_s = 0;
	for (size_t i = 0; i < claim_count; i++) {
		if (claims[i].at_s < shape->rest_s)
			continue;
		asked++;
		refused += claims[i].added_s < 0;
		waited_s += claims[i].added_s > 0 ? claims[i].added_s : 0;
	}
	double usd = figures.running_idle_s * SIZING_IDLE_USD_PER_SECOND + figures.leased_s * SIZING_BUSY_USD_PER_SECOND;
	printf("{");
	print_added("all", any_claim);
	print_added("hot", of_hot);
	print_added("warm", of_warm);
	print_added("cold", of_cold);
	print_added("mice", of_mouse);
	printf("\"claims\":%.0f,\"refused\":%.0f,\"hot_idle_s\":%.1f,\"running_idle_s\":%.1f,\"leased_s\":%.1f,\"target\":%.2f,"
	       "\"creates\":%llu,\"refused_creates\":%llu,\"restores\":%llu,\"usd\":%.5f,\"cost\":%.5f,\"jain\":%.4f,"
	       "\"max_alive\":%zu,\"max\":%u,\"max_running\":%zu,\"running_limit\":%u,\"seconds\":%.0f}\n",
	       asked, refused, figures.hot_idle_s, figures.running_idle_s, figures.leased_s,
	       figures.counted_s > 0 ? figures.target_s / figures.counted_s : 0, (unsigned long long)figures.creates,
	       (unsigned long long)figures.refused_creates, (unsigned long long)figures.restores, usd,
	       usd + waited_s * WAIT_USD + refused * DEADLINE_S * WAIT_USD, jain(), figures.max_alive, shape->max, figures.max_running,
	       shape->running_limit, shape->end_s - shape->rest_s);
}

static const struct shape *find_shape(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
		if (strcmp(shapes[i].name, name) == 0)
			return &shapes[i];
	return NULL;
}

static int run(const char *policy)
{
	struct machine_options options = {
		.sizing = {.hot = SIZING_AUTO,
			   .warm = SIZING_AUTO,
			   .max = shape->max,
			   .running_limit = shape->running_limit,
			   .create_limit = shape->create_limit,
			   .create_window_us = 60000000},
		.max_waiters = 64,
		.max_age_us = (uint64_t)(6 * HOUR * SECOND),
		.seed = seed | 1,
	};
	if (strncmp(policy, "oracle", 6) == 0) {
		run_oracle(strcmp(policy, "oracle-restore") == 0, strcmp(policy, "oracle-at-rest") == 0);
		return 0;
	}
	if (strcmp(policy, "restore") == 0)
		options.recycle = true;
	else if (strcmp(policy, "none") == 0)
		options.sizing.hot = options.sizing.warm = 0;
	else if (strncmp(policy, "fixed:", 6) == 0)
		options.sizing.hot = (size_t)atoi(policy + 6), options.sizing.warm = 0;
	else if (strcmp(policy, "auto") != 0)
		return -1;
	return run_machine(&options);
}

int main(int argc, char **argv)
{
	shape = argc == 4 ? find_shape(argv[1]) : NULL;
	claims = calloc(MAX_CLAIMS, sizeof *claims);
	added = calloc(MAX_CLAIMS, sizeof *added);
	heap = calloc(MAX_EVENTS, sizeof *heap);
	if (!shape || !claims || !added || !heap)
		return 2;
	seed = strtoull(argv[3], NULL, 10);
	shape->claims(shape);
	if (run(argv[2]) < 0)
		return 2;
	print_results();
	free(claims);
	free(added);
	free(heap);
	return 0;
}
