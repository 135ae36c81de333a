#include "gateway/pool/member_name.h"

#include "gateway/base/id.h"

#include <errno.h>
#include <stdio.h>

#define HASH_LEN 6
#define TAIL_LEN (MEMBER_NAME_GEN_LEN + 1 + ID_ULID_LEN)

_Static_assert(MEMBER_NAME_PREFIX_MAX + TAIL_LEN <= PROVIDER_NAME_MAX, "a name fits");

/* FNV-1a: names must differ, nobody attacks them. */
static uint32_t hash(struct slice text)
{
	uint32_t h = 2166136261u;
	for (size_t i = 0; i < text.len; i++)
		h = (h ^ (unsigned char)text.data[i]) * 16777619u;
	return h;
}

/* Lower case; any run of other characters becomes one hyphen between two that stay. False when that changed something. */
static bool sanitise(char *out, size_t room, struct slice text)
{
	size_t len = 0;
	bool gap = false;
	for (size_t i = 0; i < text.len && len < room; i++) {
		char c = text.data[i];
		if (c >= 'A' && c <= 'Z')
			c = (char)(c - 'A' + 'a');
		if ((c < 'a' || c > 'z') && (c < '0' || c > '9')) {
			gap = true;
			continue;
		}
		if (gap && len && len + 1 < room)
			out[len++] = '-';
		gap = false;
		out[len++] = c;
	}
	out[len] = '\0';
	return slice_equal(slice_of(out, len), text);
}

int member_name_instance(char out[MEMBER_NAME_INSTANCE_MAX + 1], struct slice text)
{
	if (!text.len)
		return -EINVAL;
	if (sanitise(out, MEMBER_NAME_INSTANCE_MAX, text))
		return 0;
	char kept[MEMBER_NAME_INSTANCE_MAX - HASH_LEN];
	sanitise(kept, sizeof kept - 1, text);
	uint32_t h = hash(text);
	snprintf(out, MEMBER_NAME_INSTANCE_MAX + 1, "%s%s%06x", kept, *kept ? "-" : "", (h >> 24 ^ h) & 0xffffff);
	return 0;
}

void member_name_generation(char out[MEMBER_NAME_GEN_LEN + 1], struct slice recipe)
{
	uint32_t h = hash(recipe);
	snprintf(out, MEMBER_NAME_GEN_LEN + 1, "%04x", (h >> 16 ^ h) & 0xffff);
}

void member_name_prefix(char out[MEMBER_NAME_PREFIX_MAX + 1], const char *instance)
{
	snprintf(out, MEMBER_NAME_PREFIX_MAX + 1, "sg-%s-", instance);
}

void member_name_make(char out[PROVIDER_NAME_MAX + 1], const char *instance, const char *gen, const char *ulid)
{
	snprintf(out, PROVIDER_NAME_MAX + 1, "sg-%s-%s-%s", instance, gen, ulid);
}

static bool all_of(const char *text, size_t len, const char *allowed)
{
	return strspn(text, allowed) >= len;
}

bool member_name_is_of(const char *name, const char *gen)
{
	size_t len = strlen(name);
	return len > TAIL_LEN && strncmp(name + len - TAIL_LEN, gen, MEMBER_NAME_GEN_LEN) == 0;
}

bool member_name_belongs(const char *name, const char *instance)
{
	char prefix[MEMBER_NAME_PREFIX_MAX + 1];
	member_name_prefix(prefix, instance);
	if (!slice_has_prefix(slice_str(name), slice_str(prefix)))
		return false;
	const char *tail = name + strlen(prefix);
	return strlen(tail) == TAIL_LEN && all_of(tail, MEMBER_NAME_GEN_LEN, "0123456789abcdef") && tail[MEMBER_NAME_GEN_LEN] == '-' &&
	       all_of(tail + MEMBER_NAME_GEN_LEN + 1, ID_ULID_LEN, "0123456789abcdefghjkmnpqrstvwxyz");
}
