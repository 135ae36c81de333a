#include "gateway/curl/curl_driver.h"

#include "gateway/base/log.h"

#include <errno.h>
#include <stdlib.h>

#define RETRY_MS 100

/* One multi handle with its timer: the shared one, or the own one of a connection that is kept. */
struct curl_lane {
	struct curl_driver *driver;
	uv_timer_t timer;
	CURLM *multi;
	bool acting; /* inside act(): the end of a lane waits for it */
	bool ending;
};

struct curl_driver {
	uv_loop_t *loop;
	struct curl_lane *shared;
};

struct watcher {
	uv_poll_t poll;
	struct curl_lane *lane;
	curl_socket_t fd;
	int events;
};

static void on_timer_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void end_lane(struct curl_lane *lane)
{
	lane->ending = true;
	if (lane->acting)
		return;
	curl_multi_cleanup(lane->multi);
	uv_timer_stop(&lane->timer);
	uv_close((uv_handle_t *)&lane->timer, on_timer_closed);
}

static void report_done(struct curl_lane *lane)
{
	CURLMsg *message;
	int left;
	while ((message = curl_multi_info_read(lane->multi, &left))) {
		if (message->msg != CURLMSG_DONE)
			continue;
		struct curl_transfer *transfer = NULL;
		CURLcode result = message->data.result; /* gone once the handle is removed */
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&transfer);
		transfer->done(transfer, result);
	}
}

static void on_timer(uv_timer_t *timer);

static void act(struct curl_lane *lane, curl_socket_t fd, int events)
{
	int running;
	lane->acting = true;
	CURLMcode code = curl_multi_socket_action(lane->multi, fd, events, &running);
	if (code != CURLM_OK) {
		log_error("curl: socket action failed: %s", curl_multi_strerror(code));
		/* libcurl did not get to set its timer, and without it no transfer would ever time out. */
		uv_timer_start(&lane->timer, on_timer, RETRY_MS, 0);
	}
	report_done(lane);
	lane->acting = false;
	if (lane->ending)
		end_lane(lane);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct watcher *watcher = poll->data;
	int what = 0;
	if (status < 0)
		what |= CURL_CSELECT_ERR;
	if (events & UV_READABLE)
		what |= CURL_CSELECT_IN;
	if (events & UV_WRITABLE)
		what |= CURL_CSELECT_OUT;
	act(watcher->lane, watcher->fd, what);
	/* After an error libuv has stopped watching, and libcurl says nothing new when it wants to read on. */
	if (status < 0 && !uv_is_closing((uv_handle_t *)poll))
		(void)uv_poll_start(poll, watcher->events, on_poll);
}

static void on_timer(uv_timer_t *timer)
{
	act(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

static int timer_callback(CURLM *multi UNUSED, long timeout_ms, void *ctx)
{
	struct curl_lane *lane = ctx;
	if (timeout_ms < 0)
		uv_timer_stop(&lane->timer);
	else
		uv_timer_start(&lane->timer, on_timer, (uint64_t)timeout_ms, 0);
	return 0;
}

static void on_watcher_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static struct watcher *watch(struct curl_lane *lane, curl_socket_t fd)
{
	struct watcher *watcher = calloc(1, sizeof *watcher);
	if (!watcher)
		return NULL;
	*watcher = (struct watcher){.lane = lane, .fd = fd};
	if (uv_poll_init_socket(lane->driver->loop, &watcher->poll, fd) < 0) {
		free(watcher);
		return NULL;
	}
	watcher->poll.data = watcher;
	curl_multi_assign(lane->multi, fd, watcher);
	return watcher;
}

/* Always 0: after anything else libcurl fails every transfer of the multi handle, for good. A socket that cannot be watched ends in
 * its transfer's own time-out. */
static int socket_callback(CURL *easy UNUSED, curl_socket_t fd, int what, void *ctx, void *socket_ctx)
{
	struct curl_lane *lane = ctx;
	struct watcher *watcher = socket_ctx;
	if (what == CURL_POLL_REMOVE) {
		if (watcher) {
			curl_multi_assign(lane->multi, fd, NULL);
			/* Stops watching at once: libcurl may close the descriptor right after this. */
			uv_close((uv_handle_t *)&watcher->poll, on_watcher_closed);
		}
		return 0;
	}
	if (!watcher)
		watcher = watch(lane, fd);
	if (watcher)
		watcher->events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
	if (!watcher || uv_poll_start(&watcher->poll, watcher->events, on_poll) < 0)
		log_error("curl: a socket cannot be watched");
	return 0;
}

static struct curl_lane *new_lane(struct curl_driver *driver)
{
	struct curl_lane *lane = calloc(1, sizeof *lane);
	if (!lane)
		return NULL;
	lane->driver = driver;
	lane->multi = curl_multi_init();
	if (!lane->multi) {
		free(lane);
		return NULL;
	}
	uv_timer_init(driver->loop, &lane->timer);
	lane->timer.data = lane;
	curl_multi_setopt(lane->multi, CURLMOPT_SOCKETFUNCTION, socket_callback);
	curl_multi_setopt(lane->multi, CURLMOPT_SOCKETDATA, lane);
	curl_multi_setopt(lane->multi, CURLMOPT_TIMERFUNCTION, timer_callback);
	curl_multi_setopt(lane->multi, CURLMOPT_TIMERDATA, lane);
	return lane;
}

struct curl_driver *curl_driver_new(uv_loop_t *loop)
{
	struct curl_driver *driver = calloc(1, sizeof *driver);
	if (!driver)
		return NULL;
	driver->loop = loop;
	driver->shared = new_lane(driver);
	if (driver->shared)
		return driver;
	free(driver);
	return NULL;
}

void curl_driver_free(struct curl_driver *driver)
{
	if (!driver)
		return;
	end_lane(driver->shared);
	free(driver);
}

static int start_on(struct curl_lane *lane, struct curl_transfer *transfer)
{
	if (curl_easy_setopt(transfer->easy, CURLOPT_PRIVATE, (void *)transfer) != CURLE_OK)
		return -EIO;
	CURLMcode code = curl_multi_add_handle(lane->multi, transfer->easy);
	if (code != CURLM_OK)
		return code == CURLM_OUT_OF_MEMORY ? -ENOMEM : -EIO;
	transfer->lane = lane;
	return 0;
}

int curl_transfer_start(struct curl_driver *driver, struct curl_transfer *transfer)
{
	return start_on(driver->shared, transfer);
}

int curl_transfer_start_kept(struct curl_driver *driver, struct curl_transfer *transfer)
{
	struct curl_lane *lane = new_lane(driver);
	if (!lane)
		return -ENOMEM;
	int r = start_on(lane, transfer);
	if (r < 0)
		end_lane(lane);
	return r;
}

void curl_transfer_stop(struct curl_driver *driver, struct curl_transfer *transfer)
{
	struct curl_lane *lane = transfer->lane;
	if (!lane)
		return;
	transfer->lane = NULL;
	curl_multi_remove_handle(lane->multi, transfer->easy);
	if (lane != driver->shared)
		end_lane(lane);
}

int curl_set_common(CURL *easy)
{
	CURLcode code = curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_PROXY, "");
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https,ws,wss");
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
	return code == CURLE_OK ? 0 : -EIO;
}
