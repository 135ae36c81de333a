#include "gateway/base/id.h"
#include "gateway/base/json_text.h"
#include "gateway/json/json.h"
#include "policy/record.h"
#include "policy/token.h"
#include "policy/unsettled.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

/* Those of leases that Redis does not know have another version: a gateway that would lose their use does not take them for its own. */
#define VERSION          1
#define VERSION_DEGRADED 2
#define MEMBERS          9

int unsettled_write_line(struct buf *out, const struct unsettled_entry *entry)
{
	const struct admission_lease *lease = &entry->lease;
	struct slice actor = slice_str(lease->actor);
	int r = buf_printf(out, "{\"version\":%d,\"kid\":\"%s\",\"lease\":\"%s\",\"exec_id\":\"%s\",\"actor\":",
			   lease->degraded ? VERSION_DEGRADED : VERSION, lease->kid, lease->id, lease->exec_id);
	if (r == 0) /* without it the script looks into the record */
		r = json_text_string(out, record_actor_is_valid(actor) ? actor : SLICE(""));
	return r < 0 ? r
		     : buf_printf(out, ",\"used_ms\":%" PRIu64 ",\"out_bytes\":%" PRIu64 ",\"refund\":%s,\"ended_ms\":%" PRIu64 "}\n",
				  entry->used_ms, entry->out_bytes, entry->refund ? "true" : "false", entry->ended_ms);
}

static bool is_hex(struct slice text, size_t len, const char *hyphens_at)
{
	if (text.len != len)
		return false;
	for (size_t i = 0; i < len; i++) {
		char c = text.data[i];
		bool hyphen = hyphens_at && hyphens_at[i] == '-';
		if (hyphen ? c != '-' : !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
			return false;
	}
	return true;
}

static bool is_uuid(struct slice text)
{
	return is_hex(text, ID_UUID_LEN, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx");
}

static bool read_lease(const json_t *line, struct admission_lease *lease)
{
	struct slice kid, id, actor, exec_id;
	if (!json_get_string(line, "kid", &kid) || !token_kid_or_identity(kid) || !json_get_string(line, "lease", &id) ||
	    !is_hex(id, ADMISSION_LEASE_LEN, NULL) || !json_get_string(line, "actor", &actor) ||
	    (actor.len && (!record_actor_is_valid(actor) || actor.len >= sizeof lease->actor)) ||
	    !json_get_string(line, "exec_id", &exec_id) || (exec_id.len && !is_uuid(exec_id)))
		return false;
	snprintf(lease->kid, sizeof lease->kid, "%.*s", SLICE_FMT(kid));
	snprintf(lease->id, sizeof lease->id, "%.*s", SLICE_FMT(id));
	snprintf(lease->actor, sizeof lease->actor, "%.*s", SLICE_FMT(actor));
	snprintf(lease->exec_id, sizeof lease->exec_id, "%.*s", SLICE_FMT(exec_id));
	return true;
}

static bool read_line(struct slice text, struct unsettled_entry *entry)
{
	struct json_failure failure;
	uint64_t version;
	CLEANUP(json_decref_ptr) json_t *line = json_parse(text, 1, &failure);
	const json_t *refund = json_object_get(line, "refund");
	*entry = (struct unsettled_entry){.refund = json_is_true(refund)};
	if (!json_get_u64(line, "version", &version) || (version != VERSION && version != VERSION_DEGRADED))
		return false;
	entry->lease.degraded = version == VERSION_DEGRADED;
	return json_object_size(line) == MEMBERS && json_is_boolean(refund) && json_get_u64(line, "used_ms", &entry->used_ms) &&
	       json_get_u64(line, "out_bytes", &entry->out_bytes) && json_get_u64(line, "ended_ms", &entry->ended_ms) &&
	       read_lease(line, &entry->lease);
}

int unsettled_read_lines(struct slice text, struct unsettled_entry entries[UNSETTLED_MAX], size_t *count, size_t *bad_line)
{
	*count = *bad_line = 0;
	while (text.len) {
		const char *end = memchr(text.data, '\n', text.len < UNSETTLED_LINE_MAX ? text.len : UNSETTLED_LINE_MAX);
		size_t len = end ? (size_t)(end - text.data) : 0;
		++*bad_line;
		if (!end && text.len < UNSETTLED_LINE_MAX && *count)
			return 0; /* the disk was full */
		if (!len || *count == UNSETTLED_MAX || !read_line(slice_of(text.data, len), &entries[*count]))
			return -EINVAL;
		++*count;
		text = slice_from(text, len + 1);
	}
	*bad_line = 0;
	return 0;
}
