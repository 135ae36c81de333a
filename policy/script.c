#include "policy/script.h"

#include <errno.h>
#include <hiredis/hiredis.h>

int script_send(struct link *link, struct link_command *command, const struct script *script, bool by_text, const struct slice *args,
		size_t count)
{
	const char *argv[SCRIPT_ARGS_MAX + 3];
	size_t lengths[SCRIPT_ARGS_MAX + 3];
	if (count > SCRIPT_ARGS_MAX)
		return -EINVAL;
	argv[0] = by_text ? "EVAL" : "EVALSHA";
	lengths[0] = strlen(argv[0]);
	argv[1] = by_text ? script->text : script->sha1;
	lengths[1] = by_text ? script->len : strlen(script->sha1);
	argv[2] = "1";
	lengths[2] = 1;
	for (size_t i = 0; i < count; i++) {
		argv[3 + i] = args[i].len ? args[i].data : "";
		lengths[3 + i] = args[i].len;
	}
	return link_send(link, command, (int)count + 3, argv, lengths);
}

static bool is_error(const struct redisReply *reply, struct slice code)
{
	return reply->type == REDIS_REPLY_ERROR && slice_has_prefix(slice_of(reply->str, reply->len), code);
}

bool script_is_missing(const struct redisReply *reply)
{
	return is_error(reply, SLICE("NOSCRIPT"));
}

bool script_met_wrong_type(const struct redisReply *reply)
{
	return is_error(reply, SLICE("WRONGTYPE"));
}
