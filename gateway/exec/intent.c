#include "gateway/exec/intent.h"

#include <stdlib.h>

void exec_intent_send(struct mailbox *agent, uint64_t for_ms)
{
	struct exec_intent *intent = calloc(1, sizeof *intent);
	if (!intent)
		return;
	intent->message.kind = EXEC_INTENT;
	intent->for_ms = for_ms;
	if (mailbox_post(agent, &intent->message.item) != 0)
		free(intent);
}

bool exec_intent_is_page(struct slice path, const struct http_fields *fields)
{
	if (!slice_equal(path, SLICE("/-/agent")) && !slice_has_prefix(path, SLICE("/-/agent/")))
		return false;
	return http_fields_find(fields, SLICE("Cookie")) || http_fields_find(fields, SLICE("Authorization"));
}
