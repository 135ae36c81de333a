/*
 * upgrade - which requests ask for WebSocket, and whether an answer grants it (RFC 9110 section 7.8, RFC 6455 section 4)
 *
 * Pure.
 */
#pragma once

#include "gateway/datasette/response.h"
#include "gateway/http/request.h"

#define UPGRADE_PROTOCOL "websocket"

/* GET over HTTP/1.1 without a body, `Connection: upgrade`, this one protocol and one key. Everything else that says Upgrade is an ordinary
 * request, as RFC 9110 allows. */
bool upgrade_is_asked(const struct http_head *head);

/* Does this 101 say yes to that request? Not one that anybody else could have made: Datasette has read the key. */
bool upgrade_is_granted(const struct http_head *asked, const struct response_head *answer);
