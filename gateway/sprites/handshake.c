#include "gateway/sprites/handshake.h"

#include "gateway/base/base64.h"
#include "gateway/base/id.h"
#include "gateway/base/sha1.h"

#include <errno.h>
#include <stdio.h>

#define CANDIDATES       "0.0.1-rc"
#define OLDEST_CANDIDATE 33

/* RFC 6455 section 1.3. */
static const struct slice guid = SLICE("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");

static int encode(struct slice bytes, char *out, size_t len)
{
	CLEANUP(buf_deinit) struct buf text = BUF_MAX(64);
	int r = base64_encode(&text, bytes);
	if (r < 0)
		return r;
	if (text.len != len)
		return -EIO;
	memcpy(out, buf_peek(&text).data, len);
	out[len] = '\0';
	return 0;
}

int handshake_init_key(struct handshake *handshake, const char *key)
{
	*handshake = (struct handshake){0};
	memcpy(handshake->key, key, HANDSHAKE_KEY_LEN);
	char message[HANDSHAKE_KEY_LEN + 36];
	memcpy(message, key, HANDSHAKE_KEY_LEN);
	memcpy(message + HANDSHAKE_KEY_LEN, guid.data, guid.len);
	unsigned char digest[SHA1_BYTES];
	int r = sha1(slice_of(message, sizeof message), digest);
	if (r < 0)
		return r;
	return encode(slice_of((const char *)digest, sizeof digest), handshake->accept, HANDSHAKE_ACCEPT_LEN);
}

int handshake_init(struct handshake *handshake)
{
	char nonce[16], key[HANDSHAKE_KEY_LEN + 1];
	int r = id_random(nonce, sizeof nonce);
	if (r == 0)
		r = encode(slice_of(nonce, sizeof nonce), key, HANDSHAKE_KEY_LEN);
	return r < 0 ? r : handshake_init_key(handshake, key);
}

static bool has_token(struct slice list, struct slice token)
{
	struct slice part;
	while (slice_next(&list, ',', &part)) {
		if (slice_equal_nocase(slice_trim(part), token))
			return true;
	}
	return false;
}

static struct slice without_line_end(struct slice line)
{
	while (line.len && (line.data[line.len - 1] == '\n' || line.data[line.len - 1] == '\r'))
		line.len--;
	return line;
}

/* It may end up in a log. */
static void take_version(struct handshake *handshake, struct slice value)
{
	static const char alphabet[] = "0123456789.-+ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
	handshake->from_agent = true;
	handshake->version[0] = '\0';
	if (value.len > HANDSHAKE_VERSION_MAX)
		return;
	for (size_t i = 0; i < value.len; i++)
		if (!memchr(alphabet, value.data[i], sizeof alphabet - 1))
			return;
	snprintf(handshake->version, sizeof handshake->version, "%.*s", SLICE_FMT(value));
}

void handshake_header(struct handshake *handshake, struct slice line)
{
	line = without_line_end(line);
	if (slice_has_prefix(line, SLICE("HTTP/"))) {
		handshake->upgrade = handshake->connection = handshake->accepted = handshake->extra = false;
		handshake->from_agent = false;
		handshake->version[0] = '\0';
		return;
	}
	struct slice value = line, name;
	if (!slice_next(&value, ':', &name))
		return;
	value = slice_trim(value);
	if (slice_equal_nocase(name, SLICE("upgrade")))
		handshake->upgrade = has_token(value, SLICE("websocket"));
	else if (slice_equal_nocase(name, SLICE("connection")))
		handshake->connection |= has_token(value, SLICE("upgrade"));
	else if (slice_equal_nocase(name, SLICE("sec-websocket-accept")))
		handshake->accepted = slice_equal(value, slice_str(handshake->accept));
	else if (slice_equal_nocase(name, SLICE("sec-websocket-extensions")) || slice_equal_nocase(name, SLICE("sec-websocket-protocol")))
		handshake->extra |= value.len > 0;
	else if (slice_equal_nocase(name, SLICE("sprite-version")))
		take_version(handshake, value);
}

bool handshake_is_outdated(const char *version)
{
	struct slice rest = slice_str(version);
	uint64_t candidate;
	if (slice_has_prefix(rest, SLICE("v")))
		rest = slice_from(rest, 1);
	if (!slice_has_prefix(rest, SLICE(CANDIDATES)))
		return false;
	return slice_to_u64(slice_from(rest, strlen(CANDIDATES)), UINT64_MAX, &candidate) == 0 && candidate < OLDEST_CANDIDATE;
}

const char *handshake_check(const struct handshake *handshake)
{
	if (!handshake->upgrade || !handshake->connection)
		return "the answer to the WebSocket handshake does not upgrade the connection";
	if (!handshake->accepted)
		return "the answer to the WebSocket handshake has a wrong Sec-WebSocket-Accept";
	if (handshake->extra)
		return "the answer to the WebSocket handshake has an extension or subprotocol that was not asked for";
	return NULL;
}
