#include "gateway/exec/launch.h"
#include "gateway/exec/request.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Any body either gives faults or a request that can be launched. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP(buf_deinit) struct buf faults = BUF_MAX(1024 * 1024);
	CLEANUP(exec_request_free_ptr) struct exec_request *request = NULL;
	struct json_failure failure;
	int r = exec_request_parse(slice_of((const char *)data, size), NULL, &request, &faults, &failure);
	if ((r == 0) != (request != NULL) || (r == EXEC_REQUEST_INVALID && !faults.len))
		abort();
	struct launch launch;
	const struct launch_options options = {.nonce = size % 2 ? SLICE("nonce") : SLICE(""),
					       .lasts_s = size % 3 ? 900 : 0,
					       .caps = {.file_bytes = size % 5 ? 0 : UINT64_MAX}};
	if (r == 0 && launch_init(&launch, request, "0193e3f0-0000-7000-8000-000000000000", &options) == 0)
		launch_deinit(&launch);
	return 0;
}
