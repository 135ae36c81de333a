/*
 * origin - may a request be one that a page of another origin made a browser send? Datasette's own rule (its csrf.py)
 *
 * Pure. Only requests whose credentials a browser may have added by itself are asked about; gateway tokens it never adds.
 */
#pragma once

#include "gateway/http/request.h"

/* `scheme`: that of the client, "http" or "https". */
bool origin_is_own(const struct http_head *head, struct slice scheme);
