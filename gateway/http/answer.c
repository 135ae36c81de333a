#include "gateway/http/answer_head.h"
#include "gateway/http/internal.h"

#include <errno.h>

/* How much libmicrohttpd asks for at once when the length is known, or the end of the connection is the end of the answer. */
#define BLOCK_SIZE (128 * 1024)

/* libmicrohttpd closes a connection that its reader ends, but gives it back only when it looks at it again: at once for those with a
 * time-out of their own, and for the others when no older connection is left. */
static ssize_t end_with(struct http_request *request, ssize_t result)
{
	struct http_server *server = request->server;
	if (result == MHD_CONTENT_READER_END_WITH_ERROR)
		request_show_cut(request);
	unsigned other = server->options.idle_timeout_ms / 1000 == 1 ? 2 : 1;
	connection_time_out(request->connection, other);
	server->readable = true;
	server_kick(server);
	return result;
}

/* Straight from where the bytes come, when nothing waits that came before them. */
static size_t pull(struct http_request *request, char *into, size_t room)
{
	request->more = false;
	if (request->aborted || request->ended || request->out.len || !request->sink || !request->sink->on_pull)
		return 0;
	size_t n = request->sink->on_pull(request->ctx, into, room);
	request->bytes_out += n;
	return n;
}

static ssize_t on_read(void *ctx, uint64_t position UNUSED, char *into, size_t room)
{
	struct http_request *request = ctx;
	size_t pulled = pull(request, into, room);
	if (pulled)
		return (ssize_t)pulled;
	if (request->aborted)
		return end_with(request, MHD_CONTENT_READER_END_WITH_ERROR);
	if (!request->out.len) {
		bool chunked = request->head.version_minor > 0 && request->length == HTTP_LENGTH_UNKNOWN;
		if (request->ended && request->short_answer)
			return end_with(request, MHD_CONTENT_READER_END_WITH_ERROR);
		if (request->ended)
			return chunked ? MHD_CONTENT_READER_END_OF_STREAM : end_with(request, MHD_CONTENT_READER_END_OF_STREAM);
		request_suspend(request);
		return 0;
	}
	struct slice bytes = buf_peek(&request->out);
	size_t n = bytes.len < room ? bytes.len : room;
	memcpy(into, bytes.data, n);
	buf_consume(&request->out, n);
	request->bytes_out += n;
	if (request->want_writable && request->out.len <= HTTP_REQUEST_BUFFER / 2)
		request_touch(request);
	return (ssize_t)n;
}

/* Borrowed until the request has completed. */
static struct MHD_Response *from_memory(struct slice bytes)
{
	static char none[] = "";
	return MHD_create_response_from_buffer(bytes.len, bytes.len ? (void *)(uintptr_t)bytes.data : none, MHD_RESPMEM_PERSISTENT);
}

static struct slice whole_body(const struct http_request *request)
{
	return request->lent.len ? request->lent : buf_peek(&request->out);
}

static struct MHD_Response *create(struct http_request *request)
{
	if (request->protocol)
		return MHD_create_response_for_upgrade(upgraded_begin, request);
	if (request->bodyless && request->status != 204)
		return MHD_create_response_empty(MHD_RF_HEAD_ONLY_RESPONSE);
	if (request->bodyless)
		return from_memory((struct slice){0});
	if (request->ended && !request->short_answer) {
		struct slice body = whole_body(request);
		request->bytes_out = body.len;
		return from_memory(body);
	}
	uint64_t size = request->length == HTTP_LENGTH_UNKNOWN ? MHD_SIZE_UNKNOWN : request->length;
	/* Chunks are made in the memory of the connection. */
	bool chunked = size == MHD_SIZE_UNKNOWN && request->head.version_minor > 0;
	return MHD_create_response_from_callback(size, chunked ? 1 : size < BLOCK_SIZE ? size : BLOCK_SIZE, on_read, request, NULL);
}

static int add_field(struct MHD_Response *response, const char *name, const char *value)
{
	/* libmicrohttpd refuses an empty value; a blank one is empty to every reader. */
	return MHD_add_response_header(response, name, *value ? value : " ") == MHD_YES ? 0 : -ENOMEM;
}

/* Not in its header: what MHD_add_response_header() ends in, without a look for line ends. answer_head_add() has looked. */
bool MHD_add_response_entry_no_check_(struct MHD_Response *response, enum MHD_ValueKind kind, const char *header, size_t header_len,
				      const char *content, size_t content_len);

static int add_lines(struct MHD_Response *response, const struct answer_part *part)
{
	struct slice name = part->name, value = part->value;
	return MHD_add_response_entry_no_check_(response, MHD_HEADER_KIND, name.data, name.len, value.data, value.len) ? 0 : -ENOMEM;
}

static int add_fields(struct http_request *request, struct MHD_Response *response)
{
	struct answer_part part;
	int r = answer_head_add(&request->answer, SLICE("X-Request-Id"), slice_of(request->id, ID_UUID_LEN));
	struct slice rest = buf_peek(&request->answer);
	while (r == 0 && answer_head_next(&rest, &part))
		r = part.own ? add_field(response, part.name.data, part.value.data) : add_lines(response, &part);
	if (r == 0 && request->protocol)
		return add_field(response, "Upgrade", request->protocol);
	if (r == 0 && (request->close || request->server->draining))
		r = add_field(response, "Connection", "close");
	if (r == 0 && request->bodyless && request->status != 204 && request->length != HTTP_LENGTH_UNKNOWN) {
		char length[24];
		snprintf(length, sizeof length, "%llu", (unsigned long long)request->length);
		r = add_field(response, "Content-Length", length);
	}
	return r;
}

int answer_commit(struct http_request *request)
{
	request->committed = true;
	if (request->ended && !request->bodyless && request->length != whole_body(request).len)
		request->short_answer = true;
	struct MHD_Response *response = create(request);
	if (!response)
		return -ENOMEM;
	int r = add_fields(request, response);
	if (r == 0 && MHD_queue_response(request->connection->mhd, request->status, response) != MHD_YES)
		r = -EIO;
	MHD_destroy_response(response);
	return r;
}
