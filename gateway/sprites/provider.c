#include "gateway/sprites/provider.h"

const char *provider_code_name(enum provider_code code)
{
	static const char *const names[] = {
		[PROVIDER_OK] = "ok",
		[PROVIDER_GONE] = "gone",
		[PROVIDER_RATE_LIMIT] = "rate_limit",
		[PROVIDER_CAPACITY] = "capacity",
		[PROVIDER_THROTTLED] = "throttled",
		[PROVIDER_UNAUTHORIZED] = "unauthorized",
		[PROVIDER_UNAVAILABLE] = "unavailable",
		[PROVIDER_POLICY] = "policy",
		[PROVIDER_TAKEN] = "taken",
		[PROVIDER_INVALID] = "invalid",
	};
	return names[code];
}
