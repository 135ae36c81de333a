/*
 * pages - what is at which path below /-/agent/exec, and the answers that need no token: usage, openapi.json, OPTIONS, 404, 405
 *
 * Runs on:  the worker's loop, on requests of http.
 * Results:  those of http_request_respond.
 */
#pragma once

#include "gateway/endpoint/reply.h"

/* The id in /-/agent/exec/<id>; false when the path is another. */
bool exec_path_id(const struct http_head *head, struct slice *exec_id);

/* /-/agent/exec/quota */
bool exec_path_is_mcp(const struct http_head *head);
bool exec_path_is_quota(const struct http_head *head);

/* /-/agent/exec/sessions */
bool exec_path_is_sessions(const struct http_head *head);

/* The name in /-/agent/exec/sessions/<name>, a valid one; false when the path is another. */
bool exec_path_session(const struct http_head *head, struct slice *name);

/* Everything that the other files of the endpoint do not take. *code gets the problem's code, or stays as it is. */
MUST_CHECK int exec_page_reply(struct http_request *request, const struct exec_reply *reply, const char **code);

/* Generated from openapi.json. */
extern const char exec_openapi[];
extern const size_t exec_openapi_len;
