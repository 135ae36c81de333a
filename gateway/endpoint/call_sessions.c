#include "gateway/endpoint/call.h"

#include <errno.h>
#include <inttypes.h>

#define FIELDS 5

/* name:busy:age ms:idle ms:ends in ms */
static int put_session(struct buf *body, struct slice entry, bool first)
{
	struct slice parts[FIELDS] = {0};
	uint64_t numbers[FIELDS] = {0};
	for (size_t i = 0; i < FIELDS; i++)
		if (!slice_next(&entry, ':', &parts[i]) || (i && slice_to_u64(parts[i], UINT64_MAX, &numbers[i]) != 0))
			return -EPROTO;
	return buf_printf(body,
			  "%s{\"name\":\"%.*s\",\"busy\":%s,\"age_seconds\":%" PRIu64 ",\"idle_seconds\":%" PRIu64
			  ",\"ends_in_seconds\":%" PRIu64 "}",
			  first ? "" : ",", SLICE_FMT(parts[0]), numbers[1] ? "true" : "false", numbers[2] / 1000,
			  numbers[1] ? 0 : numbers[3] / 1000, numbers[4] / 1000);
}

static int put_sessions(struct buf *body, const struct admission_answer *answer)
{
	struct slice rest = answer->result, entry;
	int r = buf_printf(body, "{\"ok\":true,\"max_sessions\":%" PRIu64 ",\"sessions\":[", answer->max_sessions);
	for (bool first = true; r == 0 && rest.len && slice_next(&rest, ' ', &entry); first = false)
		r = put_session(body, entry, first);
	return r < 0 ? r : buf_append(body, SLICE("]}\n"));
}

static void on_listed(void *ctx, const struct admission_answer *answer)
{
	struct call *call = ctx;
	CLEANUP(buf_deinit) struct buf body = BUF_MAX(answer->result.len * 4 + 8192);
	call->admission = NULL;
	call_remember(call, answer);
	if (answer->code != ADMISSION_SESSIONS)
		call_refuse_decision(call, answer);
	else if (put_sessions(&body, answer) < 0)
		call_refuse(call, exec_problem_internal);
	else
		call_respond(call, 200, buf_peek(&body));
}

void call_list_sessions(struct call *call)
{
	call_ask(call, SLICE("sessions"), false, on_listed);
}

static void on_closed(void *ctx, const struct admission_answer *answer)
{
	struct call *call = ctx;
	CLEANUP(buf_deinit) struct buf body = BUF_MAX(256);
	call->admission = NULL;
	call_remember(call, answer);
	if (answer->code == ADMISSION_NO_COMMAND) {
		call_refuse(call, exec_problem_no_session);
	} else if (answer->code != ADMISSION_SESSION_CLOSED) {
		call_refuse_decision(call, answer);
	} else if (buf_printf(&body, "{\"ok\":true,\"session\":\"%.*s\",\"state\":\"closed\"}\n", SLICE_FMT(call->session)) < 0) {
		call_refuse(call, exec_problem_internal);
	} else {
		call_decide(call, "allow", "session", NULL);
		call_respond(call, 200, buf_peek(&body));
	}
}

void call_close_session(struct call *call, struct slice name)
{
	call->session = name;
	call_ask(call, SLICE("session"), true, on_closed);
}
