/*
 * status_page - status_page.html, put here by the build
 */
#pragma once

#include <stddef.h>

extern const char status_page[];
extern const size_t status_page_len;
