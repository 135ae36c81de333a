/*
 * keepalive - a TCP peer that vanished without a word is given up
 *
 * Its kernel is asked whether it is there when nothing comes from it, and what it does not acknowledge counts as well: TCP by itself would
 * go on for a quarter of an hour, and for ever when nothing is under way.
 */
#pragma once

#include "gateway/base/attr.h"

/* So long after its last sign of life, in whole seconds, at least 1000; also when it is there but takes nothing of what waits for it. The
 * connections of a listening socket have it from their start. -errno; not for Unix sockets. */
MUST_CHECK int keepalive_set(int fd, unsigned silence_ms);
