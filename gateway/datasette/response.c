#include "gateway/datasette/response.h"

#include <errno.h>

/* A chunk extension longer than this is an attack or a bug (RFC 9112 section 7.1.1). */
#define EXTENSION_MAX 256

static int fail(struct response *response, const char *why)
{
	if (!response->error)
		response->error = why;
	return -1; /* a user error to llhttp */
}

static struct response *of(llhttp_t *parser)
{
	return parser->data;
}

/* --- llhttp's callbacks: 0 = go on, -1 = broken ------------------------------------------------------------------------- */

static int count_head(struct response *response, size_t len)
{
	response->head_bytes += len;
	response->head_too_large = response->head_bytes > RESPONSE_HEAD_MAX;
	return response->head_too_large ? fail(response, "its head is larger than 256 KiB") : 0;
}

static int on_status(llhttp_t *parser, const char *at UNUSED, size_t len)
{
	return count_head(of(parser), len);
}

static int add_text(struct response *response, const char *at, size_t len)
{
	if (count_head(response, len) < 0)
		return -1;
	/* Trailers are not merged into the head (RFC 9110 section 6.5). */
	if (response->head_done)
		return 0;
	return buf_append(&response->text, slice_of(at, len)) < 0 ? fail(response, "there is no memory for its head") : 0;
}

static int on_name(llhttp_t *parser, const char *at, size_t len)
{
	return add_text(of(parser), at, len);
}

static int on_name_complete(llhttp_t *parser)
{
	struct response *response = of(parser);
	if (count_head(response, 4) < 0)
		return -1;
	if (response->head_done)
		return 0;
	if (response->count == RESPONSE_FIELDS_MAX)
		return fail(response, "it has more than 100 header fields");
	struct response_span *span = &response->spans[response->count];
	size_t start = response->count ? span[-1].value + span[-1].value_len : 0;
	*span = (struct response_span){.name = start, .name_len = response->text.len - start, .value = response->text.len};
	return 0;
}

static int on_value(llhttp_t *parser, const char *at, size_t len)
{
	return add_text(of(parser), at, len);
}

static struct slice span_name(const struct response *response, const struct response_span *span)
{
	return slice_of(response->text.data + span->name, span->name_len);
}

static struct slice span_value(const struct response *response, const struct response_span *span)
{
	return slice_trim(slice_of(response->text.data + span->value, span->value_len));
}

static int on_value_complete(llhttp_t *parser)
{
	struct response *response = of(parser);
	if (response->head_done)
		return 0;
	struct response_span *span = &response->spans[response->count++];
	span->value_len = response->text.len - span->value;
	struct slice name = span_name(response, span);
	if (slice_equal_nocase(name, SLICE("content-length"))) {
		if (response->content_lengths++)
			return fail(response, "it has two Content-Length fields");
		if (slice_to_u64(span_value(response, span), INT64_MAX, &response->content_length) != 0)
			return fail(response, "its Content-Length is not a number");
	} else if (slice_equal_nocase(name, SLICE("transfer-encoding"))) {
		if (response->codings++)
			return fail(response, "it has two Transfer-Encoding fields");
		if (!slice_equal_nocase(span_value(response, span), SLICE("chunked")))
			return fail(response, "its transfer coding is not chunked");
	}
	return 0;
}

static void fill_head(struct response *response)
{
	struct response_head *head = &response->head;
	head->status = response->parser.status_code;
	head->length = response->content_lengths ? response->content_length : RESPONSE_LENGTH_UNKNOWN;
	head->has_body = !response->to_head && head->status >= 200 && head->status != 204 && head->status != 304 && head->length != 0;
	head->count = response->count;
	for (size_t i = 0; i < response->count; i++)
		head->fields[i] =
			(struct response_field){span_name(response, &response->spans[i]), span_value(response, &response->spans[i])};
}

static int check_head(struct response *response)
{
	const llhttp_t *parser = &response->parser;
	if (parser->http_major != 1 || parser->http_minor > 1)
		return fail(response, "it is not HTTP/1.1");
	if (parser->status_code < 100 || parser->status_code > 599)
		return fail(response, "its status is outside 100 to 599");
	if (parser->status_code == 101 && !response->may_switch)
		return fail(response, "it switched protocols, which nobody asked for");
	if (parser->status_code == 101 && (!parser->upgrade || response->codings || response->content_lengths))
		return fail(response, "it switched protocols, but not in order");
	if (response->codings && response->content_lengths)
		return fail(response, "it has both Content-Length and Transfer-Encoding");
	if (response->codings && parser->http_minor == 0)
		return fail(response, "it has a Transfer-Encoding in HTTP/1.0");
	if (parser->status_code < 200 && parser->status_code != 101 && ++response->interim > RESPONSE_INTERIM_MAX)
		return fail(response, "it sent more than 10 interim answers");
	return 0;
}

static int on_headers_complete(llhttp_t *parser)
{
	struct response *response = of(parser);
	if (check_head(response) < 0)
		return -1;
	response->head_done = true;
	fill_head(response);
	if (response->head.status >= 200)
		response->events->on_head(response->ctx, &response->head);
	else if (response->head.status != 101 && response->events->on_interim)
		response->events->on_interim(response->ctx, &response->head);
	/* 1: no body follows, whatever the fields say (RFC 9112 section 6.3). */
	unsigned status = response->head.status;
	return response->to_head || status < 200 || status == 204 || status == 304 ? 1 : 0;
}

static int on_chunk_extension(llhttp_t *parser, const char *at UNUSED, size_t len)
{
	struct response *response = of(parser);
	response->extension_bytes += len;
	return response->extension_bytes > EXTENSION_MAX ? fail(response, "it has an endless chunk extension") : 0;
}

static int on_chunk_header(llhttp_t *parser)
{
	of(parser)->extension_bytes = 0;
	return 0;
}

static int on_body(llhttp_t *parser, const char *at, size_t len)
{
	struct response *response = of(parser);
	response->events->on_body(response->ctx, slice_of(at, len));
	return 0;
}

static void begin_head(struct response *response)
{
	buf_consume(&response->text, response->text.len);
	response->count = response->head_bytes = response->extension_bytes = 0;
	response->content_lengths = response->codings = 0;
	response->head_done = response->head_too_large = false;
}

static int on_message_complete(llhttp_t *parser)
{
	struct response *response = of(parser);
	if (response->head.status < 200 && response->head.status != 101) {
		begin_head(response);
		return 0;
	}
	response->keep_alive = response->head.status >= 200 && llhttp_should_keep_alive(parser) == 1;
	return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
	.on_status = on_status,
	.on_header_field = on_name,
	.on_header_field_complete = on_name_complete,
	.on_header_value = on_value,
	.on_header_value_complete = on_value_complete,
	.on_headers_complete = on_headers_complete,
	.on_chunk_extension_name = on_chunk_extension,
	.on_chunk_extension_value = on_chunk_extension,
	.on_chunk_header = on_chunk_header,
	.on_body = on_body,
	.on_message_complete = on_message_complete,
};

/* --- life ---------------------------------------------------------------------------------------------------------------- */

void response_init(struct response *response, const struct response_events *events, void *ctx)
{
	*response = (struct response){.events = events, .ctx = ctx};
	buf_init(&response->text, RESPONSE_HEAD_MAX);
}

void response_deinit(struct response *response)
{
	buf_deinit(&response->text);
}

void response_begin(struct response *response, bool to_head)
{
	llhttp_init(&response->parser, HTTP_RESPONSE, &settings);
	response->parser.data = response;
	response->to_head = to_head;
	response->interim = 0;
	response->started = response->may_switch = response->keep_alive = response->dead = false;
	response->error = NULL;
	begin_head(response);
}

void response_allow_switch(struct response *response)
{
	response->may_switch = true;
}

static int broken(struct response *response, enum llhttp_errno code)
{
	response->dead = true;
	if (!response->error)
		response->error = code == HPE_CLOSED_CONNECTION ? "more came after an answer that said it was the last"
								: "it is not well-formed HTTP";
	return -EPROTO;
}

int response_feed(struct response *response, struct slice bytes, size_t *used)
{
	*used = 0;
	if (response->dead)
		return -EPROTO;
	response->started |= bytes.len > 0;
	enum llhttp_errno code = llhttp_execute(&response->parser, bytes.data, bytes.len);
	if (code == HPE_OK) {
		*used = bytes.len;
		return 0;
	}
	if (code != HPE_PAUSED)
		return broken(response, code);
	*used = (size_t)(llhttp_get_error_pos(&response->parser) - bytes.data);
	response->dead = true;
	return RESPONSE_DONE;
}

int response_eof(struct response *response)
{
	if (response->dead)
		return -EPROTO;
	/* llhttp calls an end before any byte clean; to us it is none. */
	if (!response->head_done) {
		response->error = response->started ? "it ended inside its head" : "it closed the connection without an answer";
		return broken(response, HPE_OK);
	}
	enum llhttp_errno code = llhttp_finish(&response->parser);
	if (code != HPE_PAUSED && code != HPE_OK) {
		response->error = "it ended before its body was complete";
		return broken(response, code);
	}
	response->dead = true;
	response->keep_alive = false;
	return RESPONSE_DONE;
}
