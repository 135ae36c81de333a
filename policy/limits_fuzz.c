#include "policy/limits.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is taken lies within the bounds, and what we write ourselves is read back as the same. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice text = slice_of((const char *)data, size);
	struct limits_rate rate;
	uint64_t value, again;
	char written[LIMITS_TEXT_LEN + 1];
	if (limits_rate(text, &rate) == 0 &&
	    (!rate.count || rate.count > LIMITS_RATE_COUNT_MAX || rate.per_ms < 1000 || rate.per_ms > LIMITS_WINDOW_MAX_MS))
		abort();
	if (limits_duration(text, 0, UINT64_MAX, &value) == 0) {
		limits_write_duration(value, written);
		if (limits_duration(slice_str(written), 0, UINT64_MAX, &again) != 0 || again != value)
			abort();
	}
	if (limits_bytes(text, 0, UINT64_MAX, &value) == 0) {
		limits_write_bytes(value, written);
		if (limits_bytes(slice_str(written), 0, UINT64_MAX, &again) != 0 || again != value)
			abort();
	}
	if (limits_budget(text, 10, 20, &value) == 0 && (value < 10 || value > 20))
		abort();
	return 0;
}
