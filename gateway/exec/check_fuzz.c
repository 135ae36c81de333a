#include "gateway/exec/check.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Whatever the commands of the check print (the first byte says where to cut): it ends, and nothing is claimed. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct output streams[2];
	struct check check;
	struct check_command command;
	output_init(&streams[0], 64);
	output_init(&streams[1], 64);
	if (check_init(&check, streams, "nonce") < 0)
		abort();
	size_t cut = size ? data[0] : 0;
	if (cut > size)
		cut = size;
	for (size_t i = 0; check_next(&check, &command); i++) {
		if (i > 100 || check_reply(&check, 0, slice_of((const char *)data, cut)) < 0 ||
		    check_reply(&check, 1, slice_of((const char *)data + cut, size - cut)) < 0 || check_replied(&check, 0) < 0)
			abort();
	}
	/* The nonce cannot be guessed. */
	if (check.verdict != CHECK_FAILED)
		abort();
	check_deinit(&check);
	output_deinit(&streams[0]);
	output_deinit(&streams[1]);
	return 0;
}
