/*
 * clock - the two clocks; read once per loop turn and passed down
 */
#pragma once

#include <stdint.h>

/* Monotonic microseconds since an arbitrary start: for deadlines and durations. */
uint64_t clock_mono_us(void);

/* Milliseconds since an arbitrary start, also of the time in which the machine was suspended: for how long something may be trusted. */
uint64_t clock_boot_ms(void);

/* Wall-clock milliseconds since 1970: for logs and ids only, it may jump. */
uint64_t clock_wall_ms(void);

/* "2026-01-31T10:28:13.366Z", always 24 characters plus NUL. */
void clock_format(uint64_t wall_ms, char out[25]);
