#include "policy/record.h"

#include "policy/limits.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

#define BURST_USUAL 10

struct field {
	const char *name;
	size_t offset;
	size_t size; /* of the text; 0 = a number */
};

#define TEXT(member)   {#member, offsetof(struct record, member), sizeof(((struct record *)0)->member)}
#define NUMBER(member) {#member, offsetof(struct record, member), 0}

static const struct field fields[RECORD_FIELDS] = {
	[RECORD_MAC] = TEXT(mac),
	[RECORD_PEP] = TEXT(pep),
	[RECORD_PMAC] = TEXT(pmac),
	[RECORD_PMAC_UNTIL] = NUMBER(pmac_until),
	[RECORD_STATUS] = TEXT(status),
	[RECORD_ACTOR] = TEXT(actor),
	[RECORD_NBF] = NUMBER(nbf),
	[RECORD_EXP] = NUMBER(exp),
	[RECORD_POL] = TEXT(pol),
	[RECORD_NAME] = TEXT(name),
	[RECORD_CREATED] = NUMBER(created),
	[RECORD_CREATED_BY] = TEXT(created_by),
	[RECORD_VER] = NUMBER(ver),
	[RECORD_SCOPES] = TEXT(scopes),
	[RECORD_RATE_N] = NUMBER(rate_n),
	[RECORD_RATE_PER_MS] = NUMBER(rate_per_ms),
	[RECORD_BURST] = NUMBER(burst),
	[RECORD_ARATE_N] = NUMBER(arate_n),
	[RECORD_ARATE_PER_MS] = NUMBER(arate_per_ms),
	[RECORD_ABURST] = NUMBER(aburst),
	[RECORD_CONC] = NUMBER(conc),
	[RECORD_ACONC] = NUMBER(aconc),
	[RECORD_BUD_MS] = NUMBER(bud_ms),
	[RECORD_BUD_OUT] = NUMBER(bud_out),
	[RECORD_MAX_MS] = NUMBER(max_ms),
	[RECORD_MAX_OUT] = NUMBER(max_out),
	[RECORD_MAX_IN] = NUMBER(max_in),
	[RECORD_CMDS] = TEXT(cmds),
	[RECORD_ENV_ALLOW] = TEXT(env_allow),
	[RECORD_IP_ALLOW] = TEXT(ip_allow),
	[RECORD_SHADOW] = TEXT(shadow),
	[RECORD_EGRESS] = TEXT(egress),
	[RECORD_SESSIONS] = NUMBER(sessions),
	[RECORD_MAX_PROCS] = NUMBER(max_procs),
	[RECORD_MAX_FILE] = NUMBER(max_file),
	[RECORD_MAX_MEM] = NUMBER(max_mem),
};

static bool is_present(const struct record *record, size_t field)
{
	return record->present & RECORD_BIT(field);
}

size_t record_write(const struct record *record, struct slice out[2 * RECORD_FIELDS], char numbers[RECORD_FIELDS][21])
{
	size_t count = 0;
	for (size_t i = 0; i < RECORD_FIELDS; i++) {
		const char *at = (const char *)record + fields[i].offset;
		if (!is_present(record, i))
			continue;
		out[count++] = slice_str(fields[i].name);
		if (fields[i].size) {
			out[count++] = slice_str(at);
			continue;
		}
		uint64_t number;
		memcpy(&number, at, sizeof number);
		snprintf(numbers[i], sizeof numbers[i], "%" PRIu64, number);
		out[count++] = slice_str(numbers[i]);
	}
	return count;
}

static int read_value(char *at, size_t size, struct slice value)
{
	if (!size) {
		uint64_t number;
		if (slice_to_u64(value, UINT64_MAX, &number) < 0)
			return -EINVAL;
		memcpy(at, &number, sizeof number);
		return 0;
	}
	if (value.len >= size || (value.len && memchr(value.data, '\0', value.len)))
		return -EINVAL;
	if (value.len)
		memcpy(at, value.data, value.len);
	at[value.len] = '\0';
	return 0;
}

int record_read_field(struct record *record, struct slice name, struct slice value)
{
	for (size_t i = 0; i < RECORD_FIELDS; i++) {
		if (!slice_equal(name, slice_str(fields[i].name)))
			continue;
		int r = read_value((char *)record + fields[i].offset, fields[i].size, value);
		if (r == 0)
			record->present |= RECORD_BIT(i);
		return r;
	}
	return -EINVAL;
}

const char *record_field_name(enum record_field field)
{
	return fields[field].name;
}

void record_copy(struct record *record, const struct record *from, uint64_t bits)
{
	for (size_t i = 0; i < RECORD_FIELDS; i++) {
		if (!(bits & RECORD_BIT(i)))
			continue;
		size_t size = fields[i].size ? fields[i].size : sizeof(uint64_t);
		memcpy((char *)record + fields[i].offset, (const char *)from + fields[i].offset, size);
	}
	record->present = (record->present & ~bits) | (from->present & bits);
}

static void fill_number(struct record *record, enum record_field field, uint64_t value)
{
	if (is_present(record, field))
		return;
	memcpy((char *)record + fields[field].offset, &value, sizeof value);
	record->present |= RECORD_BIT(field);
}

void record_fill(struct record *record)
{
	if (!is_present(record, RECORD_SCOPES)) {
		strcpy(record->scopes, "exec:run");
		record->present |= RECORD_BIT(RECORD_SCOPES);
	}
	if (!is_present(record, RECORD_RATE_N)) {
		fill_number(record, RECORD_RATE_N, 60);
		fill_number(record, RECORD_RATE_PER_MS, 60 * LIMITS_SECOND_MS);
	}
	fill_number(record, RECORD_BURST, record->rate_n < BURST_USUAL ? record->rate_n : BURST_USUAL);
	if (record->arate_n)
		fill_number(record, RECORD_ABURST, record->burst);
	fill_number(record, RECORD_CONC, 3);
	uint64_t run = 300 * LIMITS_SECOND_MS;
	fill_number(record, RECORD_MAX_MS, record->bud_ms && record->bud_ms < run ? record->bud_ms : run);
	if (record->bud_out && record->bud_out < 2 * (UINT64_C(1) << 20))
		fill_number(record, RECORD_MAX_OUT, record->bud_out / 2);
}

/* A bucket that takes longer to fill than the longest window could not be counted in whole microseconds. */
static bool fills_in_time(uint64_t count, uint64_t per_ms, uint64_t burst)
{
	return per_ms && burst && burst <= LIMITS_WINDOW_MAX_MS / per_ms * count;
}

bool record_is_usable(const struct record *record, char problem[RECORD_PROBLEM])
{
	const char *why = NULL;
	if (!record->rate_n || !record->burst || !record->conc || !record->max_ms || !record->scopes[0])
		why = "rate, burst, conc, max-run and scope must be there";
	else if (!fills_in_time(record->rate_n, record->rate_per_ms, record->burst))
		why = "--burst is too large for --rate: the burst must come back within 365d";
	else if (record->aburst && !record->arate_n)
		why = "--actor-burst needs --actor-rate";
	else if (record->arate_n && !fills_in_time(record->arate_n, record->arate_per_ms, record->aburst))
		why = "--actor-burst is too large for --actor-rate: the burst must come back within 365d";
	else if (record->bud_ms && record->max_ms > record->bud_ms)
		why = "--max-run is longer than --budget allows in a day";
	else if (record->bud_out && 2 * record->max_out > record->bud_out)
		why = "--max-out, for both streams, is more than --budget-out allows in a day";
	if (why)
		snprintf(problem, RECORD_PROBLEM, "%s", why);
	return !why;
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

bool record_policy_name_is_valid(struct slice name)
{
	static const char allowed[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._-";
	if (name.len == 0 || name.len > RECORD_NAME_MAX)
		return false;
	for (size_t i = 0; i < name.len; i++)
		if (!name.data[i] || !strchr(allowed, name.data[i]))
			return false;
	return true;
}
