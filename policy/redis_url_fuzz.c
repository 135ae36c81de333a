#include "policy/redis_url.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A URL that is taken names exactly one place. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct redis_url url;
	const char *why = NULL;
	if (redis_url_parse(slice_of((const char *)data, size), &url, &why) == 0) {
		if (!url.host[0] == !url.path[0] || (url.host[0] && !url.port) || (url.user[0] && !url.password[0]))
			abort();
	} else if (!why) {
		abort();
	}
	redis_url_wipe(&url);
	return 0;
}
