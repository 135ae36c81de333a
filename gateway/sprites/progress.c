#include "gateway/sprites/progress.h"

#include <ctype.h>
#include <stdio.h>

#define MAX_DEPTH 8

struct progress {
	bool complete, failed, broken;
	char error[160];
	char id[ANSWERS_CHECKPOINT];
};

/* Letters, digits and what else may stand in a path unquoted. */
static bool is_id(struct slice text)
{
	for (size_t i = 0; i < text.len; i++)
		if (!isalnum((unsigned char)text.data[i]) && !memchr("._-", text.data[i], 3))
			return false;
	return text.len > 0 && text.len < ANSWERS_CHECKPOINT && text.data[0] != '.';
}

/* "  ID: v1" */
static void take_id(struct progress *progress, struct slice data)
{
	data = slice_trim(data);
	if (!slice_has_prefix(data, SLICE("ID: ")))
		return;
	struct slice id = slice_trim(slice_from(data, 4));
	if (is_id(id))
		snprintf(progress->id, sizeof progress->id, "%.*s", SLICE_FMT(id));
}

static void take_line(struct progress *progress, struct slice line)
{
	struct json_failure failure;
	struct slice type, text = {0};
	CLEANUP(json_decref_ptr) json_t *value = json_parse(line, MAX_DEPTH, &failure);
	if (!json_get_string(value, "type", &type)) {
		progress->broken = true;
	} else if (slice_equal(type, SLICE("error"))) {
		progress->failed = true;
		(void)json_get_string(value, "error", &text);
		snprintf(progress->error, sizeof progress->error, "%.*s", text.len < 150 ? (int)text.len : 150, text.data);
	} else if (slice_equal(type, SLICE("complete"))) {
		progress->complete = true;
	} else if (slice_equal(type, SLICE("info")) && json_get_string(value, "data", &text)) {
		take_id(progress, text);
	}
}

static const char *fault(const struct progress *progress, enum sprites_call call)
{
	if (progress->failed)
		return progress->error;
	if (progress->broken)
		return "the stream has a line that cannot be read";
	if (!progress->complete)
		return "the stream ended before it was complete";
	return call == SPRITES_CHECKPOINT && !progress->id[0] ? "the stream has no id" : NULL;
}

void progress_judge(struct verdict *verdict, enum sprites_call call, struct slice text)
{
	struct progress progress = {0};
	struct slice line;
	while (slice_next(&text, '\n', &line))
		if (slice_trim(line).len)
			take_line(&progress, line);
	if (slice_trim(text).len)
		take_line(&progress, text);
	const char *why = fault(&progress, call);
	if (why) {
		verdict->code = PROVIDER_INVALID;
		snprintf(verdict->detail, sizeof verdict->detail, "%s: %s", sprites_call_name(call), why);
	} else if (call == SPRITES_CHECKPOINT) {
		memcpy(verdict->checkpoint, progress.id, sizeof verdict->checkpoint);
	}
}
