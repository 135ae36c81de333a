#include "policy/known_bad.h"

#include <errno.h>
#include <stdlib.h>

#define WAYS    4
#define SETS    (KNOWN_BAD_ENTRIES / WAYS)
#define MAC_LEN 32 /* of the text: 128 bits */

struct known_bad_entry {
	char kid[TOKEN_KID_LEN];
	char mac[MAC_LEN];
	const char *reason;
	uint64_t until_ms; /* 0 = empty */
};

/* A MAC is as good as random, and nobody without the pepper can choose one. */
static struct known_bad_entry *set_of(const struct known_bad *known, const char *mac)
{
	size_t set = 0;
	for (size_t i = 0; i < 8; i++)
		set = set * 31 + (unsigned char)mac[i];
	return &known->entries[set % SETS * WAYS];
}

static bool is(const struct known_bad_entry *entry, const char *kid, const char *mac)
{
	return memcmp(entry->kid, kid, TOKEN_KID_LEN) == 0 && memcmp(entry->mac, mac, MAC_LEN) == 0;
}

int known_bad_init(struct known_bad *known)
{
	known->entries = calloc(KNOWN_BAD_ENTRIES, sizeof *known->entries);
	return known->entries ? 0 : -ENOMEM;
}

void known_bad_deinit(struct known_bad *known)
{
	free(known->entries);
	known->entries = NULL;
}

void known_bad_add(struct known_bad *known, const char *kid, const char *mac, const char *reason, uint64_t now_ms)
{
	struct known_bad_entry *set = set_of(known, mac), *place = set;
	for (size_t i = 0; i < WAYS; i++) {
		if (is(&set[i], kid, mac)) {
			place = &set[i];
			break;
		}
		if (set[i].until_ms < place->until_ms)
			place = &set[i];
	}
	*place = (struct known_bad_entry){.reason = reason, .until_ms = now_ms + KNOWN_BAD_MS};
	memcpy(place->kid, kid, sizeof place->kid);
	memcpy(place->mac, mac, sizeof place->mac);
}

const char *known_bad_find(const struct known_bad *known, const char *kid, const char *mac, uint64_t now_ms)
{
	const struct known_bad_entry *set = set_of(known, mac);
	for (size_t i = 0; i < WAYS; i++)
		if (set[i].until_ms > now_ms && is(&set[i], kid, mac))
			return set[i].reason;
	return NULL;
}
