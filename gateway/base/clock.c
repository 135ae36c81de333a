#include "gateway/base/clock.h"

#include <string.h>
#include <time.h>

static uint64_t read_us(clockid_t id)
{
	struct timespec t;
	clock_gettime(id, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

uint64_t clock_mono_us(void)
{
	return read_us(CLOCK_MONOTONIC);
}

uint64_t clock_boot_ms(void)
{
	return read_us(CLOCK_BOOTTIME) / 1000;
}

uint64_t clock_wall_ms(void)
{
	return read_us(CLOCK_REALTIME) / 1000;
}

static void put_digits(char *out, size_t width, unsigned value)
{
	for (; width; value /= 10)
		out[--width] = (char)('0' + value % 10);
}

/* Once a request: strftime would cost ten times as much. */
void clock_format(uint64_t wall_ms, char out[25])
{
	time_t seconds = (time_t)(wall_ms / 1000);
	struct tm tm;
	memcpy(out, "0000-00-00T00:00:00.000Z", 25);
	gmtime_r(&seconds, &tm);
	put_digits(out, 4, (unsigned)tm.tm_year + 1900);
	put_digits(out + 5, 2, (unsigned)tm.tm_mon + 1);
	put_digits(out + 8, 2, (unsigned)tm.tm_mday);
	put_digits(out + 11, 2, (unsigned)tm.tm_hour);
	put_digits(out + 14, 2, (unsigned)tm.tm_min);
	put_digits(out + 17, 2, (unsigned)tm.tm_sec);
	put_digits(out + 20, 3, (unsigned)(wall_ms % 1000));
}
