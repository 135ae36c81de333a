/*
 * guard - the process that ends all others of this Sprite when their time is over, whoever else is dead
 *
 * The time stands in a file beside this program (RECORD_UNTIL), which the one guard there is has locked. A command that comes while it
 * runs says another time.
 */
#pragma once

#include <stdbool.h>

/* Ahead of a command: without one it ends with who waits for it. What guard_tell() takes, or -1: an earlier guard has not ended yet. */
int guard_start_ahead(int folder);

/* For so many seconds from now all may go on. */
bool guard_tell(int until, unsigned long lasts_s);

/* The same where none was started ahead: what the guard needs that is to be started, or -1 when there is one. */
int guard_say(unsigned long lasts_s, int folder);

/* Nothing with -1. Without a guard the command runs all the same. */
void guard_start(int folder, int unguarded);

/* As no child of this process: what it becomes has none that it does not know. */
void guard_start_adopted(int folder, int unguarded);
