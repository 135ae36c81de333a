#include "policy/record.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

struct field {
	const char *name;
	size_t offset;
	size_t size; /* of the text; 0 = a number */
};

#define TEXT(member)   {#member, offsetof(struct record, member), sizeof(((struct record *)0)->member)}
#define NUMBER(member) {#member, offsetof(struct record, member), 0}

static const struct field fields[] = {
	TEXT(mac),     TEXT(pep),         TEXT(status),    TEXT(actor),    TEXT(name),           NUMBER(created), NUMBER(nbf),
	NUMBER(exp),   TEXT(scopes),      NUMBER(rate_n),  NUMBER(rate_per_ms), NUMBER(burst),   NUMBER(arate_n), NUMBER(arate_per_ms),
	NUMBER(aburst), NUMBER(conc),     NUMBER(aconc),   NUMBER(bud_ms), NUMBER(max_ms),       NUMBER(max_out), NUMBER(max_in),
	TEXT(cmds),    TEXT(pol),         NUMBER(ver),
};

_Static_assert(ARRAY_LEN(fields) <= RECORD_FIELDS, "record_write's arrays are large enough");

size_t record_write(const struct record *record, struct slice out[2 * RECORD_FIELDS], char numbers[RECORD_FIELDS][21])
{
	size_t count = 0;
	for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
		const char *at = (const char *)record + fields[i].offset;
		struct slice value;
		if (fields[i].size) {
			value = slice_str(at);
		} else {
			uint64_t number;
			memcpy(&number, at, sizeof number);
			snprintf(numbers[i], sizeof numbers[i], "%" PRIu64, number);
			value = number ? slice_str(numbers[i]) : (struct slice){0};
		}
		if (!value.len)
			continue;
		out[count++] = slice_str(fields[i].name);
		out[count++] = value;
	}
	return count;
}

int record_read_field(struct record *record, struct slice name, struct slice value)
{
	for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
		if (!slice_equal(name, slice_str(fields[i].name)))
			continue;
		char *at = (char *)record + fields[i].offset;
		if (!fields[i].size) {
			uint64_t number;
			if (slice_to_u64(value, UINT64_MAX, &number) < 0)
				return -EINVAL;
			memcpy(at, &number, sizeof number);
			return 0;
		}
		if (value.len >= fields[i].size || (value.len && memchr(value.data, '\0', value.len)))
			return -EINVAL;
		if (value.len)
			memcpy(at, value.data, value.len);
		at[value.len] = '\0';
		return 0;
	}
	return 0;
}

void record_set_defaults(struct record *record)
{
	*record = (struct record){
		.status = "active",
		.scopes = "exec:run",
		.rate_n = 60,
		.rate_per_ms = 60000,
		.burst = 10,
		.conc = 3,
		.max_ms = 300000,
		.ver = 1,
	};
}

bool record_actor_is_valid(struct slice actor)
{
	if (actor.len == 0 || actor.len > RECORD_TEXT_MAX)
		return false;
	for (size_t i = 0; i < actor.len; i++) {
		char c = actor.data[i];
		if (c <= ' ' || c > '~' || c == '"' || c == '\\')
			return false;
	}
	return true;
}
