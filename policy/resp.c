#include "policy/resp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HEAD_MAX 23 /* a mark, 20 digits, the line's end */

static char *put_head(char *at, char mark, size_t number)
{
	char head[HEAD_MAX];
	size_t from = sizeof head;
	head[--from] = '\n';
	head[--from] = '\r';
	do
		head[--from] = (char)('0' + number % 10);
	while (number /= 10);
	head[--from] = mark;
	memcpy(at, head + from, sizeof head - from);
	return at + (sizeof head - from);
}

int resp_command(int argc, const char **argv, const size_t *lengths, char **text, size_t *len)
{
	size_t size = HEAD_MAX + 1;
	for (int i = 0; i < argc; i++)
		size += HEAD_MAX + lengths[i] + 2;
	char *at = *text = malloc(size);
	if (!at)
		return -ENOMEM;
	at = put_head(at, '*', (size_t)argc);
	for (int i = 0; i < argc; i++) {
		at = put_head(at, '$', lengths[i]);
		memcpy(at, argv[i], lengths[i]);
		at += lengths[i];
		*at++ = '\r';
		*at++ = '\n';
	}
	*at = '\0';
	*len = (size_t)(at - *text);
	return 0;
}
