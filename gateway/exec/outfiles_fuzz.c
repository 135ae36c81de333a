#include "gateway/exec/outfiles.h"

#include <stdlib.h>

/* Two files; what is fed is cut in replies, each after the right nonce. Whatever a Sprite says, the caps hold and it ends. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *paths[] = {"a", "b"};
	const struct exec_request request = {.outputs = paths, .output_count = 2};
	struct outfiles outfiles;
	struct sandbox_command command;
	struct slice rest = slice_of((const char *)data, size), reply;
	if (outfiles_init(&outfiles, &request) < 0)
		return 0;
	memset(outfiles.nonce, 'a', RECORD_NONCE_LEN);
	outfiles_begin(&outfiles, 100, 150);
	while (rest.len && slice_next(&rest, '\xff', &reply) && outfiles_next(&outfiles, &command))
		if (outfiles_reply(&outfiles, reply) < 0 || outfiles_replied(&outfiles, 0) < 0)
			abort();
	outfiles_give_up(&outfiles);
	uint64_t kept = 0;
	for (size_t i = 0; i < 2; i++) {
		const struct outfile *file = &outfiles.files[i];
		if (file->error ? file->bytes.len : !file->done || file->bytes.len != file->size)
			abort();
		kept += file->bytes.len;
	}
	CLEANUP(buf_deinit) struct buf json = BUF_MAX(4096);
	if (kept > 150 || outfiles_put(&outfiles, true, &json) < 0)
		abort();
	outfiles_deinit(&outfiles);
	return 0;
}
