#include "gateway/endpoint/accept.h"
#include "gateway/endpoint/idempotency.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Any value of the two fields that this endpoint reads for itself: a key has a digest or is refused, an Accept gives one of our types. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct http_fields fields = {0};
	char digest[SHA256_HEX + 1];
	struct slice value = slice_of((const char *)data, size);
	if (http_fields_add(&fields, SLICE("Idempotency-Key"), value) != 0 || http_fields_add(&fields, SLICE("Accept"), value) != 0)
		return 0;
	int r = idempotency_key(&fields, digest);
	if (r == 0 && strlen(digest) != SHA256_HEX)
		abort();
	if (!exec_content_type(exec_accept(&fields)).len)
		abort();
	return 0;
}
