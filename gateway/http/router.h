/*
 * router - whose request is it? Decided on the raw path, byte for byte
 *
 * Pure.
 */
#pragma once

#include "gateway/base/slice.h"

enum http_route {
	HTTP_ROUTE_PROXY,     /* Datasette */
	HTTP_ROUTE_EXEC,      /* exactly /-/agent/exec */
	HTTP_ROUTE_EXEC_SUB,  /* /-/agent/exec/… */
	HTTP_ROUTE_HEALTH,    /* /-/gateway/health */
	HTTP_ROUTE_AMBIGUOUS, /* decodes or normalises to one of exec's paths, but is not that path: refused */
};

/* The label of request metrics: a closed list. */
enum http_route_label {
	HTTP_LABEL_OTHER,
	HTTP_LABEL_EXEC,
	HTTP_LABEL_STATIC,
	HTTP_LABEL_TABLE,
	HTTP_LABEL_ROW,
	HTTP_LABEL_GATEWAY,
	HTTP_LABELS, /* how many there are */
};

enum http_route http_route_of(struct slice raw_path);
enum http_route_label http_route_label_of(struct slice raw_path);

/* "other", "exec", … */
const char *http_route_label_name(enum http_route_label label);
