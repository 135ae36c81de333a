#include "policy/token.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is taken has the shape of a token, and lies where the text lies. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	struct token_parts parts;
	if (token_parse(slice_of(text, size), &parts) != 0)
		return 0;
	if (size != TOKEN_LEN || memcmp(text, "sgt_", 4) != 0 || !token_kid_is_valid(parts.kid) || parts.kid.data != text + 4 ||
	    parts.secret.data != text + 21 || parts.secret.len != TOKEN_SECRET_LEN)
		abort();
	return 0;
}
