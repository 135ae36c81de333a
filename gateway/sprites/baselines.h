/*
 * baselines - what each Sprite was when it was clean: its checkpoint, and a mark of how long its machine has run
 *
 * Owns:       one record for each Sprite that may be restored.
 * Bounds:     as many as there are Sprites; baselines_drop() with each that is destroyed.
 */
#pragma once

#include "gateway/sprites/answers.h"

#define BASELINES_MARK 32

struct baseline {
	char name[PROVIDER_NAME_MAX + 1];
	char checkpoint[ANSWERS_CHECKPOINT];
	char mark[BASELINES_MARK]; /* when its first process began; a restore begins another */
	struct baseline *prev, *next;
};

struct baselines {
	struct baseline *all;
};

/* The record of this name, made if there is none; NULL when out of memory. */
struct baseline *baselines_make(struct baselines *baselines, const char *name);

/* NULL when there is none. */
struct baseline *baselines_find(const struct baselines *baselines, const char *name);
void baselines_drop(struct baselines *baselines, const char *name);
void baselines_deinit(struct baselines *baselines);
