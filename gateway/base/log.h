/*
 * log - one JSON object a line on standard error: {"time", "level", "message"}, and the ids of the request or command that it is about
 *
 * Runs on:  any thread; one write(2) a line, so lines never mix.
 * Bounds:   a line is cut at 8 KiB.
 * Rule:     no secret and no command text is ever passed here.
 */
#pragma once

#include "gateway/base/id.h"
#include "gateway/base/slice.h"
#include "gateway/base/trace.h"

enum log_level { LOG_LEVEL_INFO, LOG_LEVEL_WARNING, LOG_LEVEL_ERROR };

/* The request or command that a line is about; what is "" is left out. Plain data. */
struct log_subject {
	char request_id[ID_UUID_LEN + 1];
	char exec_id[ID_UUID_LEN + 1];
	char trace_id[TRACE_ID_LEN + 1];
};

/* `subject` NULL: it is about none. */
void log_write(enum log_level level, const struct log_subject *subject, const char *format, ...) PRINTF(3, 4);

#define log_info(...)    log_write(LOG_LEVEL_INFO, NULL, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, NULL, __VA_ARGS__)
#define log_error(...)   log_write(LOG_LEVEL_ERROR, NULL, __VA_ARGS__)

#define log_info_of(subject, ...)    log_write(LOG_LEVEL_INFO, subject, __VA_ARGS__)
#define log_warning_of(subject, ...) log_write(LOG_LEVEL_WARNING, subject, __VA_ARGS__)
#define log_error_of(subject, ...)   log_write(LOG_LEVEL_ERROR, subject, __VA_ARGS__)
