#include "gateway/exec/recent.h"

#include <stdlib.h>

static struct recent_budget *find(struct recent *recent, const char *kid)
{
	for (size_t i = 0; i < RECENT_BUDGETS; i++)
		if (strcmp(recent->budgets[i].kid, kid) == 0)
			return &recent->budgets[i];
	return NULL;
}

static struct recent_budget *oldest(struct recent *recent)
{
	struct recent_budget *found = &recent->budgets[0];
	for (size_t i = 1; i < RECENT_BUDGETS; i++)
		if (recent->budgets[i].seen_ms < found->seen_ms)
			found = &recent->budgets[i];
	return found;
}

void recent_grant(struct recent *recent, const struct admission_lease *lease, const struct fields_budget *budget, uint64_t wall_ms)
{
	struct recent_budget *entry = find(recent, lease->kid);
	uint64_t taken_ms = budget->used_ms + budget->held_ms;
	if (lease->degraded) /* nobody said anything of a budget */
		return;
	if (!budget->limit_ms) {
		if (entry)
			*entry = (struct recent_budget){0}; /* it had one */
		return;
	}
	if (!entry)
		entry = oldest(recent);
	*entry = (struct recent_budget){.limit_ms = budget->limit_ms,
					.left_ms = budget->limit_ms > taken_ms ? budget->limit_ms - taken_ms : 0,
					.seen_ms = wall_ms,
					.reset_ms = wall_ms + budget->reset_us / 1000};
	memcpy(entry->kid, lease->kid, sizeof entry->kid);
}

void recent_end(struct recent *recent, const struct admission_lease *lease, const struct recent_run *run, uint64_t used_ms)
{
	struct recent_budget *entry = find(recent, lease->kid);
	recent->runs[recent->ended++ % RECENT_RUNS] = *run;
	if (!entry || lease->degraded || used_ms >= lease->granted_ms)
		return;
	entry->left_ms += lease->granted_ms - used_ms;
	if (entry->left_ms > entry->limit_ms)
		entry->left_ms = entry->limit_ms;
}

const struct recent_run *recent_run(const struct recent *recent, size_t i)
{
	size_t kept = recent->ended < RECENT_RUNS ? recent->ended : RECENT_RUNS;
	return i < kept ? &recent->runs[(recent->ended - 1 - i) % RECENT_RUNS] : NULL;
}

static int compare(const void *a, const void *b)
{
	const struct recent_budget *const *left = a, *const *right = b;
	double x = (double)(*left)->left_ms / (double)(*left)->limit_ms, y = (double)(*right)->left_ms / (double)(*right)->limit_ms;
	return x < y ? -1 : x > y;
}

size_t recent_budgets(const struct recent *recent, uint64_t wall_ms, const struct recent_budget **out, size_t max)
{
	const struct recent_budget *known[RECENT_BUDGETS];
	size_t count = 0;
	for (size_t i = 0; i < RECENT_BUDGETS; i++)
		if (recent->budgets[i].kid[0] && recent->budgets[i].reset_ms > wall_ms)
			known[count++] = &recent->budgets[i];
	qsort(known, count, sizeof known[0], compare);
	count = count < max ? count : max;
	memcpy(out, known, count * sizeof known[0]);
	return count;
}
