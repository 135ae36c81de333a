#include "gateway/http/trace_of.h"

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
