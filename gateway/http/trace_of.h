/*
 * trace_of - the trace that a request belongs to
 */
#pragma once

#include "gateway/base/log.h"
#include "gateway/base/trace.h"
#include "gateway/http/request.h"

/* That of its one valid traceparent; else one that begins with it. True in the first case. */
bool http_trace_of(const struct http_head *head, struct trace *trace);

/* For lines of the log that are about it. */
struct log_subject http_subject_of(const struct http_head *head);
