#include "gateway/proxy/upgrade.h"

#include "gateway/base/base64.h"
#include "gateway/base/sha1.h"

/* Of 16 bytes in base64. */
#define KEY_LEN 24

static const struct slice protocol = SLICE(UPGRADE_PROTOCOL);

static bool says_upgrade(const struct http_fields *fields)
{
	for (size_t i = 0; i < fields->count; i++)
		if (http_known_find(fields->at[i].name)->id == HTTP_CONNECTION && http_list_has(fields->at[i].value, SLICE("upgrade")))
			return true;
	return false;
}

static struct slice key_of(const struct http_head *head)
{
	return slice_trim(http_fields_value(head->fields, SLICE("sec-websocket-key")));
}

bool upgrade_is_asked(const struct http_head *head)
{
	const struct http_fields *fields = head->fields;
	return head->version_minor > 0 && head->body == HTTP_BODY_NONE && slice_equal(head->method, SLICE("GET")) && says_upgrade(fields) &&
	       http_fields_count(fields, SLICE("upgrade")) == 1 && http_fields_count(fields, SLICE("sec-websocket-key")) == 1 &&
	       slice_equal_nocase(slice_trim(http_fields_value(fields, SLICE("upgrade"))), protocol) && key_of(head).len == KEY_LEN;
}

static int accept_of(struct slice key, struct buf *accept)
{
	CLEANUP(buf_deinit) struct buf message = BUF_MAX(128);
	unsigned char digest[SHA1_BYTES];
	int r = buf_append(&message, key);
	if (r == 0)
		r = buf_append(&message, SLICE("258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
	if (r == 0)
		r = sha1(buf_peek(&message), digest);
	return r < 0 ? r : base64_encode(accept, slice_of((const char *)digest, sizeof digest));
}

/* The one field of that name, or nothing. */
static struct slice only(const struct response_head *head, struct slice name)
{
	struct slice value = {0};
	size_t count = 0;
	for (size_t i = 0; i < head->count; i++) {
		if (!slice_equal_nocase(head->fields[i].name, name))
			continue;
		value = head->fields[i].value;
		count++;
	}
	return count == 1 ? value : (struct slice){0};
}

bool upgrade_is_granted(const struct http_head *asked, const struct response_head *answer)
{
	CLEANUP(buf_deinit) struct buf accept = BUF_MAX(64);
	return slice_equal_nocase(only(answer, SLICE("upgrade")), protocol) && accept_of(key_of(asked), &accept) == 0 &&
	       slice_equal(only(answer, SLICE("sec-websocket-accept")), buf_peek(&accept));
}
