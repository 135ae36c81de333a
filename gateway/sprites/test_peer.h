/*
 * test_peer - the other end of a WebSocket, scripted by a test on the same loop (127.0.0.1)
 *
 * For exactly one source file of a test program; needs cmocka's header before it. peer_start … peer_stop; connections come one
 * after another. What it was sent is in peer.texts.
 */
#pragma once

#include "gateway/base/buf.h"
#include "gateway/sprites/handshake.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#define PEER_MAX         ((size_t)8 << 20)
#define PEER_CONNECTIONS 4

static struct peer {
	uv_tcp_t listener, connections[PEER_CONNECTIONS];
	uv_tcp_t *connection; /* the last one; NULL = none */
	int connected;        /* how many came */
	bool answered;
	const char *answer;    /* instead of a proper 101; "" = none at all */
	struct slice with_101; /* frames in the same segment */
	bool deaf;             /* stops reading after the handshake */
	bool answers_pings;
	struct buf in;    /* handshake, then frames not taken apart yet */
	struct buf texts; /* what came: "kind:payload\n", long payloads as "kind:#length\n" */
	int port;
} peer;

static void on_written(uv_write_t *write, int status UNUSED)
{
	free(write->data);
	free(write);
}

static void peer_send(struct slice bytes)
{
	uv_write_t *write = calloc(1, sizeof *write);
	assert_non_null(write);
	write->data = slice_dup(bytes);
	uv_buf_t buf = uv_buf_init(write->data, (unsigned)bytes.len);
	assert_int_equal(uv_write(write, (uv_stream_t *)peer.connection, &buf, 1, on_written), 0);
}

/* One unmasked frame. */
static void peer_frame(unsigned char first_byte, struct slice payload)
{
	CLEANUP(buf_deinit) struct buf frame = BUF_MAX(PEER_MAX);
	unsigned char head[10] = {first_byte};
	size_t len = 2;
	if (payload.len < 126) {
		head[1] = (unsigned char)payload.len;
	} else {
		head[1] = 127;
		for (int i = 0; i < 8; i++)
			head[2 + i] = (unsigned char)((uint64_t)payload.len >> (56 - 8 * i));
		len = 10;
	}
	assert_int_equal(buf_append(&frame, slice_of((char *)head, len)), 0);
	assert_int_equal(buf_append(&frame, payload), 0);
	peer_send(buf_peek(&frame));
}

static void peer_saw(unsigned opcode, struct slice payload)
{
	int r = payload.len < 200 ? buf_printf(&peer.texts, "%x:%.*s\n", opcode, SLICE_FMT(payload))
				  : buf_printf(&peer.texts, "%x:#%zu\n", opcode, payload.len);
	assert_int_equal(r, 0);
	if (opcode == 9 && peer.answers_pings)
		peer_frame(0x8a, payload);
}

/* Takes one masked frame apart; false when it is not whole yet. */
static bool peer_take(void)
{
	struct slice in = buf_peek(&peer.in);
	const unsigned char *bytes = (const unsigned char *)in.data;
	if (in.len < 6)
		return false;
	assert_true(bytes[1] & 0x80); /* a client masks (RFC 6455 section 5.1) */
	size_t len = bytes[1] & 0x7f, head = 2;
	if (len == 126) {
		len = (size_t)bytes[2] << 8 | bytes[3];
		head = 4;
	} else if (len == 127) {
		len = 0;
		for (int i = 0; i < 8; i++)
			len = len << 8 | bytes[2 + i];
		head = 10;
	}
	if (in.len < head + 4 + len)
		return false;
	CLEANUP(free_ptr) char *payload = malloc(len + 1);
	assert_non_null(payload);
	for (size_t i = 0; i < len; i++)
		payload[i] = (char)(bytes[head + 4 + i] ^ bytes[head + i % 4]);
	peer_saw(bytes[0] & 15, slice_of(payload, len));
	buf_consume(&peer.in, head + 4 + len);
	return true;
}

static void peer_answer(struct slice request)
{
	CLEANUP(free_ptr) char *text = slice_dup(request);
	const char *key = strcasestr(text, "sec-websocket-key: ");
	struct handshake handshake;
	assert_non_null(key);
	assert_non_null(strstr(text, "Authorization: Bearer secret\r\n"));
	assert_int_equal(handshake_init_key(&handshake, key + strlen("sec-websocket-key: ")), 0);
	CLEANUP(buf_deinit) struct buf answer = BUF_MAX(PEER_MAX);
	int r = peer.answer ? buf_append(&answer, slice_str(peer.answer))
			    : buf_printf(&answer,
					 "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
					 "Sec-WebSocket-Accept: %s\r\n\r\n",
					 handshake.accept);
	if (r == 0)
		r = buf_append(&answer, peer.with_101);
	assert_int_equal(r, 0);
	if (answer.len)
		peer_send(buf_peek(&answer));
}

static void on_allocate(uv_handle_t *handle UNUSED, size_t want UNUSED, uv_buf_t *buf)
{
	static char block[65536];
	*buf = uv_buf_init(block, sizeof block);
}

static void on_peer_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	if (n < 0) {
		uv_read_stop(stream);
		assert_int_equal(buf_append(&peer.texts, SLICE("eof\n")), 0);
		return;
	}
	assert_int_equal(buf_append(&peer.in, slice_of(buf->base, (size_t)n)), 0);
	if (!peer.answered) {
		struct slice in = buf_peek(&peer.in);
		const char *end = memmem(in.data, in.len, "\r\n\r\n", 4);
		if (!end)
			return;
		peer.answered = true;
		peer_answer(in);
		buf_consume(&peer.in, (size_t)(end + 4 - in.data));
		if (peer.deaf)
			uv_read_stop(stream);
	}
	while (peer_take())
		;
}

static void on_connection(uv_stream_t *listener, int status)
{
	assert_int_equal(status, 0);
	assert_true(peer.connected < PEER_CONNECTIONS);
	peer.connection = &peer.connections[peer.connected++];
	peer.answered = false;
	buf_deinit(&peer.in);
	assert_int_equal(uv_tcp_init(listener->loop, peer.connection), 0);
	assert_int_equal(uv_accept(listener, (uv_stream_t *)peer.connection), 0);
	/* A deaf peer is to be noticed soon. */
	int small = 65536;
	assert_int_equal(uv_recv_buffer_size((uv_handle_t *)peer.connection, &small), 0);
	assert_int_equal(uv_read_start((uv_stream_t *)peer.connection, on_allocate, on_peer_read), 0);
}

static void close_peer(uv_tcp_t *handle)
{
	if (!uv_is_closing((uv_handle_t *)handle))
		uv_close((uv_handle_t *)handle, NULL);
}

static void peer_start(uv_loop_t *loop)
{
	struct sockaddr_in address;
	int len = sizeof address;
	peer = (struct peer){.in = BUF_MAX(PEER_MAX), .texts = BUF_MAX(PEER_MAX), .answers_pings = true};
	assert_int_equal(uv_tcp_init(loop, &peer.listener), 0);
	assert_int_equal(uv_ip4_addr("127.0.0.1", 0, &address), 0);
	assert_int_equal(uv_tcp_bind(&peer.listener, (struct sockaddr *)&address, 0), 0);
	assert_int_equal(uv_listen((uv_stream_t *)&peer.listener, 8, on_connection), 0);
	assert_int_equal(uv_tcp_getsockname(&peer.listener, (struct sockaddr *)&address, &len), 0);
	peer.port = ntohs(address.sin_port);
}

/* The memory of its handles is needed until the loop has closed them. */
static void peer_stop(void)
{
	close_peer(&peer.listener);
	for (int i = 0; i < peer.connected; i++)
		close_peer(&peer.connections[i]);
}

static void peer_free(void)
{
	buf_deinit(&peer.in);
	buf_deinit(&peer.texts);
}

static size_t peer_count(const char *text)
{
	size_t n = 0, len = strlen(text);
	struct slice rest = buf_peek(&peer.texts);
	for (const char *at; rest.len && (at = memmem(rest.data, rest.len, text, len)); n++)
		rest = slice_from(rest, (size_t)(at - rest.data) + len);
	return n;
}

static bool peer_has(const char *text)
{
	return peer_count(text) > 0;
}
