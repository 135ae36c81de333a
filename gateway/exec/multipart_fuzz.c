#include "gateway/exec/multipart.h"

#include <stdlib.h>

/* The type up to the first line end, then the body. Parts lie in the body, in order, and their names are found. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct multipart multipart;
	char boundary[MULTIPART_BOUNDARY_MAX + 1];
	struct slice body = slice_of((const char *)data, size), type;
	if (!slice_next(&body, '\n', &type) || !multipart_boundary(type, boundary) || multipart_parse(&multipart, boundary, body) != 0)
		return 0;
	const char *at = body.data;
	for (size_t i = 0; i < multipart.count; i++) {
		const struct multipart_part *part = &multipart.parts[i];
		if (part->bytes.data < at || part->bytes.data + part->bytes.len > body.data + body.len ||
		    multipart_find(&multipart, part->name) != part)
			abort();
		at = part->bytes.data + part->bytes.len;
	}
	return 0;
}
