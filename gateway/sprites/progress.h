/*
 * progress - the stream in which the API tells how making or restoring a checkpoint went (sprites contract 7)
 *
 * Its status is 200 whatever happens: it worked when a line of type "complete" came and none of type "error".
 * Pure.
 */
#pragma once

#include "gateway/sprites/answers.h"

/* `text` is the whole stream. PROVIDER_OK, or PROVIDER_INVALID and why in verdict->detail. Of SPRITES_CHECKPOINT
 * verdict->checkpoint is set. */
void progress_judge(struct verdict *verdict, enum sprites_call call, struct slice text);
