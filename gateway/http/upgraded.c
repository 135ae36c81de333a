#include "gateway/http/upgraded.h"

#include "gateway/base/keepalive.h"
#include "gateway/http/connection_events.h"
#include "gateway/http/internal.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>

struct upgraded {
	struct MHD_UpgradeResponseHandle *handle;
	uv_poll_t poll;
	int fd;
	int watched;
	bool polled; /* `poll` is a live handle */
};

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct http_request *request = poll->data;
	/* An error condition shows itself when reading. */
	request->sink->on_ready(request->ctx, status < 0 || (events & UV_READABLE), events & UV_WRITABLE);
}

static struct upgraded *new_upgraded(struct http_request *request, int fd, struct MHD_UpgradeResponseHandle *handle)
{
	const int on = 1;
	struct upgraded *upgraded = calloc(1, sizeof *upgraded);
	if (!upgraded)
		return NULL;
	upgraded->handle = handle;
	upgraded->fd = fd;
	upgraded->poll.data = request;
	upgraded->polled = uv_poll_init_socket(request->server->options.loop, &upgraded->poll, fd) == 0;
	/* Without it small pieces would wait for each other; not having it is no reason to fail. */
	int r UNUSED = setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	return upgraded;
}

void upgraded_begin(void *ctx, struct MHD_Connection *mhd UNUSED, void *request_ctx UNUSED, const char *extra, size_t extra_len,
		    MHD_socket fd, struct MHD_UpgradeResponseHandle *handle)
{
	struct http_request *request = ctx;
	connection_events_leave(request->server->epoll_fd, fd);
	request->upgraded = new_upgraded(request, fd, handle);
	if (!request->upgraded) {
		request->aborted = true;
		MHD_upgrade_action(handle, MHD_UPGRADE_ACTION_CLOSE);
		return;
	}
	/* Its end is read from now on, and need not mean that the client is gone. */
	epoll_ctl(request->server->gone_fd, EPOLL_CTL_DEL, fd, NULL);
	if (request->gone || request->aborted || request->ended || !request->upgraded->polled) {
		request_cut(request);
	} else {
		request->bytes_in += extra_len;
		request->sink->on_upgraded(request->ctx, slice_of(extra, extra_len));
	}
}

static void on_poll_closed(uv_handle_t *poll)
{
	free(CONTAINER_OF(poll, struct upgraded, poll));
}

void upgraded_close(struct http_request *request)
{
	struct upgraded *upgraded = TAKE(request->upgraded);
	if (!upgraded)
		return;
	struct MHD_UpgradeResponseHandle *handle = upgraded->handle;
	if (upgraded->polled)
		uv_close((uv_handle_t *)&upgraded->poll, on_poll_closed);
	else
		free(upgraded);
	MHD_upgrade_action(handle, MHD_UPGRADE_ACTION_CLOSE);
}

void upgraded_settle(struct http_request *request)
{
	if (!request->ended && !request->aborted)
		return;
	if (request->aborted || request->short_answer)
		request_reset(request);
	upgraded_close(request);
}

int http_upgraded_recv(struct http_request *request, char *into, size_t room, size_t *got, bool *reset)
{
	*got = 0;
	*reset = false;
	ssize_t n = recv(request->upgraded->fd, into, room, MSG_DONTWAIT);
	if (n > 0) {
		*got = (size_t)n;
		request->bytes_in += *got;
		return 0;
	}
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return HTTP_UPGRADED_E_AGAIN;
	*reset = n < 0;
	return HTTP_UPGRADED_E_CLOSED;
}

int http_upgraded_send(struct http_request *request, struct slice bytes, size_t *sent)
{
	*sent = 0;
	ssize_t n = send(request->upgraded->fd, bytes.data, bytes.len, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? HTTP_UPGRADED_E_AGAIN : HTTP_UPGRADED_E_CLOSED;
	*sent = (size_t)n;
	request->bytes_out += *sent;
	return 0;
}

void http_upgraded_end(struct http_request *request)
{
	shutdown(request->upgraded->fd, SHUT_WR);
}

void http_upgraded_set_silence(struct http_request *request, unsigned silence_ms)
{
	int r UNUSED = keepalive_set(request->upgraded->fd, silence_ms);
}

int http_upgraded_watch(struct http_request *request, bool readable, bool writable)
{
	struct upgraded *upgraded = request->upgraded;
	int events = (readable ? UV_READABLE : 0) | (writable ? UV_WRITABLE : 0);
	if (events == upgraded->watched)
		return 0;
	upgraded->watched = events;
	return events ? uv_poll_start(&upgraded->poll, events, on_poll) : uv_poll_stop(&upgraded->poll);
}
