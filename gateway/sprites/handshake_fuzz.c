/*
 * handshake_fuzz - header lines of any kind: only an answer with the right Sec-WebSocket-Accept passes
 *
 * Input: lines, separated by LF.
 */
#include "gateway/sprites/handshake.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct handshake handshake;
	struct slice rest = slice_of((const char *)data, size), line;
	if (handshake_init_key(&handshake, "dGhlIHNhbXBsZSBub25jZQ==") < 0)
		abort();
	while (slice_next(&rest, '\n', &line))
		handshake_header(&handshake, line);
	if (handshake_is_outdated(handshake.version) && !handshake.from_agent)
		abort();
	bool has = size && memmem(data, size, handshake.accept, HANDSHAKE_ACCEPT_LEN);
	if (!handshake_check(&handshake) && !has)
		abort();
	return 0;
}
