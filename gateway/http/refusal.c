#include "gateway/http/refusal.h"

#include "gateway/http/problem.h"

#include <microhttpd.h>
#include <string.h>

#define DETAIL_MAX 256

static _Thread_local unsigned noted;

void refusal_note(unsigned status)
{
	noted = status;
}

static const char *code_of(unsigned status)
{
	switch (status) {
	case 413:
		return "body-too-large";
	case 414:
		return "target-too-large";
	case 431:
		return "header-too-large";
	case 500:
		return "internal";
	case 501:
		return "not-implemented";
	case 505:
		return "version-not-supported";
	default:
		return "malformed-request";
	}
}

/* The first sentence of a page: the text of its body without tags and character references. */
static size_t take_sentence(struct slice page, char *to)
{
	const char *body = memmem(page.data, page.len, "<body>", 6);
	struct slice rest = body ? slice_from(page, (size_t)(body - page.data)) : page;
	size_t len = 0;
	char until = '\0';
	for (size_t i = 0; i < rest.len && len < DETAIL_MAX; i++) {
		char c = rest.data[i];
		if (until)
			until = c == until ? '\0' : until;
		else if (c == '<' || c == '&')
			until = c == '<' ? '>' : ';';
		else
			to[len++] = c;
		bool last = i + 1 == rest.len || rest.data[i + 1] == '<' || rest.data[i + 1] == ' ';
		if (c == '.' && last && !until)
			break;
	}
	return len;
}

static int add_fields(struct MHD_Response *response)
{
	struct http_fields fields;
	http_fields_clear(&fields);
	int r = http_problem_fields(&fields);
	for (size_t i = 0; r == 0 && i < fields.count; i++)
		if (MHD_add_response_header(response, fields.at[i].name.data, fields.at[i].value.data) != MHD_YES)
			r = -1;
	return r;
}

struct MHD_Response *__wrap_MHD_create_response_from_buffer_static(size_t size, const void *buffer);

/* In place of libmicrohttpd's, which it calls for its own pages only; we have another one for our answers. NULL: it closes without a word. */
struct MHD_Response *__wrap_MHD_create_response_from_buffer_static(size_t size, const void *buffer)
{
	CLEANUP(buf_deinit) struct buf body = BUF_MAX(4096);
	char detail[DETAIL_MAX];
	unsigned status = noted ? noted : 400;
	struct http_problem problem = {.status = status, .code = code_of(status)};
	noted = 0;
	problem.detail = slice_of(detail, take_sentence(slice_of(buffer, size), detail));
	if (http_problem_write(&problem, &body) < 0)
		return NULL;
	struct slice text = buf_peek(&body);
	struct MHD_Response *response = MHD_create_response_from_buffer_copy(text.len, text.data);
	if (response && add_fields(response) < 0) {
		MHD_destroy_response(response);
		return NULL;
	}
	return response;
}
