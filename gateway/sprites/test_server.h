/*
 * test_server - a scripted HTTP/1.1 server on the loop of a test (127.0.0.1)
 *
 * Answers requests in the order of its script, whatever they are, and keeps what was asked as "METHOD target\n" lines and the
 * last request as it came. When the script has ended, connections are dropped.
 */
#pragma once

#include "gateway/base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#define TEST_SERVER_CONNECTIONS 8

struct test_answer {
	const char *answer; /* status line, fields and body without Content-Length; "" = none, NULL = drop the connection */
	size_t pad;     /* bytes of 'x' after it */
};

struct test_connection {
	uv_tcp_t tcp;
	struct test_server *server;
	struct buf in;
	bool used;
};

struct test_server {
	uv_tcp_t listener;
	struct test_connection connections[TEST_SERVER_CONNECTIONS];
	const struct test_answer *script;
	size_t answers, at;
	struct buf asked, last;
	int port;
};

static void test_server_written(uv_write_t *write, int status UNUSED)
{
	free(write->data);
	free(write);
}

static void test_connection_closed(uv_handle_t *handle)
{
	struct test_connection *connection = handle->data;
	buf_deinit(&connection->in);
	connection->used = false;
}

static void test_connection_close(struct test_connection *connection)
{
	if (connection->used && !uv_is_closing((uv_handle_t *)&connection->tcp))
		uv_close((uv_handle_t *)&connection->tcp, test_connection_closed);
}

static void test_server_answer(struct test_connection *connection, const struct test_answer *answer)
{
	const char *body = strstr(answer->answer, "\r\n\r\n");
	struct buf out = BUF_MAX((size_t)4 << 20);
	if (!*answer->answer)
		return;
	size_t head = (size_t)(body - answer->answer), len = strlen(body + 4);
	if (buf_printf(&out, "%.*s\r\nContent-Length: %zu%s", (int)head, answer->answer, len + answer->pad, body) < 0)
		abort();
	for (size_t i = 0; i < answer->pad; i++) {
		if (buf_append_char(&out, 'x') < 0)
			abort();
	}
	uv_write_t *write = calloc(1, sizeof *write);
	uv_buf_t buf = uv_buf_init(out.data + out.start, (unsigned)out.len);
	if (!write)
		abort();
	write->data = out.data;
	if (uv_write(write, (uv_stream_t *)&connection->tcp, &buf, 1, test_server_written) != 0)
		abort();
}

static void test_server_asked(struct test_connection *connection, struct slice request)
{
	struct test_server *server = connection->server;
	struct slice target = request, method, path;
	if (!slice_next(&target, ' ', &method) || !slice_next(&target, ' ', &path))
		abort();
	buf_deinit(&server->last);
	if (buf_printf(&server->asked, "%.*s %.*s\n", SLICE_FMT(method), SLICE_FMT(path)) < 0 || buf_append(&server->last, request) < 0)
		abort();
	const struct test_answer *answer = server->at < server->answers ? &server->script[server->at++] : NULL;
	if (answer && answer->answer)
		test_server_answer(connection, answer);
	else
		test_connection_close(connection);
}

static void test_server_allocate(uv_handle_t *handle UNUSED, size_t want UNUSED, uv_buf_t *buf)
{
	static char block[65536];
	*buf = uv_buf_init(block, sizeof block);
}

static size_t test_server_length(struct slice head)
{
	char *text = slice_dup(head), *field = text ? strcasestr(text, "content-length:") : NULL;
	size_t length = field ? strtoul(field + strlen("content-length:"), NULL, 10) : 0;
	free(text);
	return length;
}

static void test_server_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct test_connection *connection = stream->data;
	if (n < 0) {
		test_connection_close(connection);
		return;
	}
	if (buf_append(&connection->in, slice_of(buf->base, (size_t)n)) < 0)
		abort();
	struct slice in = buf_peek(&connection->in);
	const char *end = in.len ? memmem(in.data, in.len, "\r\n\r\n", 4) : NULL;
	if (!end)
		return;
	size_t head = (size_t)(end - in.data) + 4, len = head + test_server_length(slice_of(in.data, head));
	if (in.len < len)
		return;
	test_server_asked(connection, slice_of(in.data, len));
	buf_consume(&connection->in, len);
}

static void test_server_connected(uv_stream_t *listener, int status)
{
	struct test_server *server = listener->data;
	struct test_connection *connection = server->connections;
	while (connection->used)
		connection++;
	if (status < 0 || connection == server->connections + TEST_SERVER_CONNECTIONS ||
	    uv_tcp_init(listener->loop, &connection->tcp) != 0 || uv_accept(listener, (uv_stream_t *)&connection->tcp) != 0)
		abort();
	connection->tcp.data = connection;
	connection->server = server;
	connection->in = BUF_MAX((size_t)4 << 20);
	connection->used = true;
	if (uv_read_start((uv_stream_t *)&connection->tcp, test_server_allocate, test_server_read) != 0)
		abort();
}

static inline void test_server_start(struct test_server *server, uv_loop_t *loop)
{
	struct sockaddr_in address;
	int len = sizeof address;
	memset(server, 0, sizeof *server);
	server->asked = BUF_MAX((size_t)1 << 20);
	server->last = BUF_MAX((size_t)4 << 20);
	if (uv_tcp_init(loop, &server->listener) != 0 || uv_ip4_addr("127.0.0.1", 0, &address) != 0 ||
	    uv_tcp_bind(&server->listener, (struct sockaddr *)&address, 0) != 0 ||
	    uv_listen((uv_stream_t *)&server->listener, 8, test_server_connected) != 0 ||
	    uv_tcp_getsockname(&server->listener, (struct sockaddr *)&address, &len) != 0)
		abort();
	server->listener.data = server;
	server->port = (int)(address.sin_port >> 8 | (address.sin_port & 0xff) << 8);
}

static inline void test_server_script(struct test_server *server, const struct test_answer *script, size_t answers)
{
	server->script = script;
	server->answers = answers;
	server->at = 0;
	buf_deinit(&server->asked);
}

static inline void test_server_stop(struct test_server *server)
{
	for (size_t i = 0; i < TEST_SERVER_CONNECTIONS; i++)
		test_connection_close(&server->connections[i]);
	if (!uv_is_closing((uv_handle_t *)&server->listener))
		uv_close((uv_handle_t *)&server->listener, NULL);
	buf_deinit(&server->asked);
	buf_deinit(&server->last);
}
