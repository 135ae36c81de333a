/*
 * test_socket - a socket that the test plays: the functions of socket.h are defined here and take the place of the real ones
 *
 * For exactly one source file of a test program; needs cmocka's header before it. `net` says what was asked for, and text(),
 * frame(), cut(), drained() and refuse() are what the network does. At most one socket is open at a time.
 */
#pragma once

#include "gateway/sprites/socket.h"

#include <stdio.h>
#include <stdlib.h>

struct socket {
	const struct socket_events *events;
	void *ctx;
};

static struct {
	struct socket *open; /* the one that is neither closed nor over */
	int opened, closed;
	char url[256];
	char version[32];
	struct buf sent;      /* "t:text\n", "b:id payload\n", long payloads as "b:id#length\n" */
	bool paused, holding; /* holding: nothing is handed to the network */
	int refuse_open, refuse_send;
	uint64_t queued, handed;
	size_t unsent;
	int dropped;
} net;

int socket_open(const struct socket_options *options UNUSED, const char *url, const struct socket_events *events, void *ctx,
		struct socket **socket)
{
	if (net.refuse_open)
		return net.refuse_open;
	assert_null(net.open);
	net.open = calloc(1, sizeof *net.open);
	assert_non_null(net.open);
	*net.open = (struct socket){.events = events, .ctx = ctx};
	net.opened++;
	net.paused = false;
	net.queued = net.handed = 0;
	snprintf(net.url, sizeof net.url, "%s", url);
	*socket = net.open;
	return 0;
}

int socket_send(struct socket *socket, enum frame_message message, struct slice first, struct slice second)
{
	assert_ptr_equal(socket, net.open);
	if (net.refuse_send)
		return net.refuse_send;
	size_t len = first.len + second.len;
	int r;
	if (message == FRAME_MESSAGE_TEXT)
		r = buf_printf(&net.sent, "t:%.*s%.*s\n", SLICE_FMT(first), SLICE_FMT(second));
	else if (len > 100)
		r = buf_printf(&net.sent, "b:%d#%zu\n", first.data[0], second.len);
	else
		r = buf_printf(&net.sent, "b:%d %.*s\n", first.data[0], SLICE_FMT(second));
	assert_int_equal(r, 0);
	net.queued++;
	if (net.holding)
		net.unsent += len;
	else
		net.handed = net.queued;
	return 0;
}

const char *socket_version(const struct socket *socket UNUSED)
{
	return net.version;
}

uint64_t socket_queued(const struct socket *socket UNUSED)
{
	return net.queued;
}

uint64_t socket_handed(const struct socket *socket UNUSED)
{
	return net.handed;
}

size_t socket_unsent(const struct socket *socket UNUSED)
{
	return net.unsent;
}

void socket_drop_unsent(struct socket *socket UNUSED)
{
	net.dropped++;
	net.unsent = 0;
}

void socket_pause(struct socket *socket UNUSED)
{
	net.paused = true;
}

void socket_resume(struct socket *socket UNUSED)
{
	net.paused = false;
}

void socket_close(struct socket *socket)
{
	if (!socket)
		return;
	assert_ptr_equal(socket, net.open);
	free(socket);
	net.open = NULL;
	net.closed++;
}

static void text(const char *message)
{
	if (net.open)
		net.open->events->on_message(net.open->ctx, FRAME_MESSAGE_TEXT, slice_str(message), true);
}

static void frame(const char *bytes, size_t len)
{
	if (net.open)
		net.open->events->on_message(net.open->ctx, FRAME_MESSAGE_BINARY, slice_of(bytes, len), true);
}

#define FRAME(literal) frame(literal, sizeof(literal) - 1)

static void ack(void)
{
	text("control:{\"type\":\"op.ack\",\"id\":\"\"}");
	text("{\"type\":\"session_info\",\"session_id\":\"42\"}");
}

static void complete(void)
{
	text("control:{\"type\":\"op.complete\",\"id\":\"\",\"args\":{\"ok\":true}}");
}

static void cut(void)
{
	if (net.open)
		net.open->events->on_closed(net.open->ctx, "cut");
}

static void drained(void)
{
	net.unsent = 0;
	net.handed = net.queued;
	net.open->events->on_drained(net.open->ctx);
}

static void refuse(struct socket_refusal refusal)
{
	refusal.reason = "refused";
	refusal.version = net.version;
	net.open->events->on_refused(net.open->ctx, &refusal);
}

static bool sent(const char *want)
{
	bool same = slice_equal(buf_peek(&net.sent), slice_str(want));
	if (!same)
		print_message("sent: %.*s\n", SLICE_FMT(buf_peek(&net.sent)));
	buf_deinit(&net.sent);
	return same;
}
