#include "gateway/sprites/baselines.h"

#include <stdlib.h>
#include <utlist.h>

struct baseline *baselines_find(const struct baselines *baselines, const char *name)
{
	struct baseline *baseline;
	DL_FOREACH (baselines->all, baseline)
		if (strcmp(baseline->name, name) == 0)
			return baseline;
	return NULL;
}

struct baseline *baselines_make(struct baselines *baselines, const char *name)
{
	struct baseline *baseline = baselines_find(baselines, name);
	if (baseline)
		return baseline;
	baseline = calloc(1, sizeof *baseline);
	if (!baseline)
		return NULL;
	strncpy(baseline->name, name, sizeof baseline->name - 1);
	DL_APPEND(baselines->all, baseline);
	return baseline;
}

void baselines_drop(struct baselines *baselines, const char *name)
{
	struct baseline *baseline = baselines_find(baselines, name);
	if (!baseline)
		return;
	DL_DELETE(baselines->all, baseline);
	free(baseline);
}

void baselines_deinit(struct baselines *baselines)
{
	while (baselines->all)
		baselines_drop(baselines, baselines->all->name);
}
