/*
 * log - one JSON object a line on standard error: {"time", "level", "message"}
 *
 * Runs on:  any thread; one write(2) a line, so lines never mix.
 * Bounds:   a line is cut at 8 KiB.
 * Rule:     no secret and no command text is ever passed here.
 */
#pragma once

#include "gateway/base/slice.h"

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARNING, LOG_LEVEL_ERROR };

void log_set_level(enum log_level level);
void log_write(enum log_level level, const char *format, ...) PRINTF(2, 3);

/* Writes a ready line (with its own newline) in one write(2); used by the access and audit logs. */
void log_raw(int fd, struct slice line);

#define log_debug(...)   log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)
#define log_info(...)    log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_error(...)   log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
