/*
 * script - the Lua scripts, embedded at build time, and how one is sent
 */
#pragma once

#include "policy/link.h"

struct script {
	const char *text;
	size_t len;
	const char *sha1; /* 40 hexadecimal digits, as EVALSHA wants */
};

/* Generated from scripts/<name>.lua. */
extern const struct script script_admit;
extern const struct script script_peek;
extern const struct script script_settle;
extern const struct script script_renew;
extern const struct script script_pool;
extern const struct script script_session;

#define SCRIPT_ARGS_MAX 64

/* Sends EVALSHA, or EVAL with the text when `by_text`. args[0] is the one key. Results: those of link_send. */
MUST_CHECK int script_send(struct link *link, struct link_command *command, const struct script *script, bool by_text,
			   const struct slice *args, size_t count);

/* Redis does not know the script (restart, failover, SCRIPT FLUSH) and has run nothing: send it again by text. */
bool script_is_missing(const struct redisReply *reply);

/* A key that it reads or would write is of another type: it has written nothing. */
bool script_met_wrong_type(const struct redisReply *reply);
