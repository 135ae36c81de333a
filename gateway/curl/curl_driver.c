#include "gateway/curl/curl_driver.h"

#include "gateway/base/log.h"

#include <errno.h>
#include <stdlib.h>

struct curl_driver {
	uv_loop_t *loop;
	uv_timer_t timer;
	CURLM *multi;
};

struct watcher {
	uv_poll_t poll;
	struct curl_driver *driver;
	curl_socket_t fd;
	int events;
};

static void report_done(struct curl_driver *driver)
{
	CURLMsg *message;
	int left;
	while ((message = curl_multi_info_read(driver->multi, &left))) {
		if (message->msg != CURLMSG_DONE)
			continue;
		struct curl_transfer *transfer = NULL;
		CURLcode result = message->data.result; /* gone once the handle is removed */
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&transfer);
		transfer->done(transfer, result);
	}
}

static void act(struct curl_driver *driver, curl_socket_t fd, int events)
{
	int running;
	CURLMcode code = curl_multi_socket_action(driver->multi, fd, events, &running);
	if (code != CURLM_OK)
		log_error("curl: socket action failed: %s", curl_multi_strerror(code));
	report_done(driver);
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
	act(watcher->driver, watcher->fd, what);
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
	struct curl_driver *driver = ctx;
	if (timeout_ms < 0)
		uv_timer_stop(&driver->timer);
	else
		uv_timer_start(&driver->timer, on_timer, (uint64_t)timeout_ms, 0);
	return 0;
}

static void on_watcher_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static struct watcher *watch(struct curl_driver *driver, curl_socket_t fd)
{
	struct watcher *watcher = calloc(1, sizeof *watcher);
	if (!watcher)
		return NULL;
	*watcher = (struct watcher){.driver = driver, .fd = fd};
	if (uv_poll_init_socket(driver->loop, &watcher->poll, fd) < 0) {
		free(watcher);
		return NULL;
	}
	watcher->poll.data = watcher;
	curl_multi_assign(driver->multi, fd, watcher);
	return watcher;
}

/* Always 0: after anything else libcurl fails every transfer of the multi handle, for good. A socket that cannot be watched ends in
 * its transfer's own time-out. */
static int socket_callback(CURL *easy UNUSED, curl_socket_t fd, int what, void *ctx, void *socket_ctx)
{
	struct curl_driver *driver = ctx;
	struct watcher *watcher = socket_ctx;
	if (what == CURL_POLL_REMOVE) {
		if (watcher) {
			curl_multi_assign(driver->multi, fd, NULL);
			/* Stops watching at once: libcurl may close the descriptor right after this. */
			uv_close((uv_handle_t *)&watcher->poll, on_watcher_closed);
		}
		return 0;
	}
	if (!watcher)
		watcher = watch(driver, fd);
	if (watcher)
		watcher->events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
	if (!watcher || uv_poll_start(&watcher->poll, watcher->events, on_poll) < 0)
		log_error("curl: a socket cannot be watched");
	return 0;
}

struct curl_driver *curl_driver_new(uv_loop_t *loop)
{
	struct curl_driver *driver = calloc(1, sizeof *driver);
	if (!driver)
		return NULL;
	driver->loop = loop;
	driver->multi = curl_multi_init();
	if (!driver->multi) {
		free(driver);
		return NULL;
	}
	uv_timer_init(loop, &driver->timer);
	driver->timer.data = driver;
	curl_multi_setopt(driver->multi, CURLMOPT_SOCKETFUNCTION, socket_callback);
	curl_multi_setopt(driver->multi, CURLMOPT_SOCKETDATA, driver);
	curl_multi_setopt(driver->multi, CURLMOPT_TIMERFUNCTION, timer_callback);
	curl_multi_setopt(driver->multi, CURLMOPT_TIMERDATA, driver);
	return driver;
}

static void on_timer_closed(uv_handle_t *handle)
{
	free(handle->data);
}

void curl_driver_free(struct curl_driver *driver)
{
	if (!driver)
		return;
	curl_multi_cleanup(driver->multi);
	uv_timer_stop(&driver->timer);
	uv_close((uv_handle_t *)&driver->timer, on_timer_closed);
}

int curl_transfer_start(struct curl_driver *driver, struct curl_transfer *transfer)
{
	if (curl_easy_setopt(transfer->easy, CURLOPT_PRIVATE, (void *)transfer) != CURLE_OK)
		return -EIO;
	CURLMcode code = curl_multi_add_handle(driver->multi, transfer->easy);
	if (code != CURLM_OK)
		return code == CURLM_OUT_OF_MEMORY ? -ENOMEM : -EIO;
	transfer->started = true;
	return 0;
}

void curl_transfer_stop(struct curl_driver *driver, struct curl_transfer *transfer)
{
	if (!transfer->started)
		return;
	transfer->started = false;
	curl_multi_remove_handle(driver->multi, transfer->easy);
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
