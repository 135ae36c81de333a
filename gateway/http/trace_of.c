#include "gateway/http/trace_of.h"

#include <stdio.h>

bool http_trace_of(const struct http_head *head, struct trace *trace)
{
	const struct http_field *found = NULL;
	size_t count = 0;
	for (size_t i = 0; head->fields && i < head->fields->count; i++) {
		if (!slice_equal_nocase(head->fields->at[i].name, SLICE("traceparent")))
			continue;
		found = &head->fields->at[i];
		count++;
	}
	if (count == 1 && trace_parse(found->value, trace) == 0)
		return true;
	trace_begin(head->id, trace);
	return false;
}

struct log_subject http_subject_of(const struct http_head *head)
{
	struct log_subject subject = {0};
	struct trace trace;
	(void)http_trace_of(head, &trace);
	snprintf(subject.request_id, sizeof subject.request_id, "%.*s", SLICE_FMT(head->id));
	memcpy(subject.trace_id, trace.id, sizeof subject.trace_id);
	return subject;
}
