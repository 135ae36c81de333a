#include "gateway/endpoint/identity.h"

#include "policy/token.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The first line are rules, the rest is what Datasette answers: whoever is known has a name that may stand in a key, and a policy. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *end = size ? memchr(data, '\n', size) : NULL;
	size_t len = end ? (size_t)(end - (const char *)data) : size;
	CLEANUP(free_ptr) char *text = slice_dup(slice_of((const char *)data, len));
	struct secret pepper = {(unsigned char[]){"x"}, 1};
	struct identity_rules rules;
	struct identity identity;
	char problem[IDENTITY_PROBLEM];
	if (!text || identity_init(&rules, &(struct identity_options){.rules = text, .action = "x", .pepper = &pepper}, problem) < 0)
		return 0;
	struct slice body = end ? slice_of(end + 1, size - len - 1) : (struct slice){0};
	if (identity_read(&rules, 200, body, &identity) < 0)
		abort();
	bool named = identity.who.actor[0] && identity.who.policy[0] && token_kid_or_identity(slice_str(identity.who.kid));
	if (identity.result == IDENTITY_KNOWN && !named)
		abort();
	identity_deinit(&rules);
	return 0;
}
