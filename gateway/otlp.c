#include "gateway/otlp.h"

#include "gateway/base/buf.h"
#include "gateway/base/json_text.h"
#include "gateway/base/log.h"
#include "gateway/http/headers.h"
#include "gateway/json/json.h"

#include <stdio.h>
#include <stdlib.h>

#define SOON_MS      250
#define RETRY_MIN_MS 1000
#define RETRY_MAX_MS 30000
#define CONNECT_MS   5000
#define ANSWER_MS    10000
#define LAST_MS      1000
#define BATCH_SPANS  512 /* so many are sent at once */
#define HEAD_MAX     4096
#define TAIL         "]}]}]}"
#define SAID_MAX     4096

/* Spans as the members of a JSON array. */
struct spans {
	struct buf text;
	uint64_t count;
};

struct otlp {
	struct otlp_options options;
	struct curl_transfer transfer;
	struct curl_slist *headers;
	char error[CURL_ERROR_SIZE];
	struct buf head;       /* what stands before the spans in every request */
	struct spans waiting, sending;
	struct buf body, said; /* of the request with `sending`; of its answer */
	uint64_t sent, dropped;
	unsigned failures;
	bool busy, complained, closing;
	uv_timer_t timer, last;
	int open_handles;
	void (*on_freed)(void *ctx);
	void *freed_ctx;
};

/* --- a request --------------------------------------------------------------- */

static void on_timer(uv_timer_t *timer);
static void on_last(uv_timer_t *timer);

static void wake(struct otlp *otlp, uint64_t ms)
{
	if (!otlp->busy && !uv_is_active((uv_handle_t *)&otlp->timer))
		uv_timer_start(&otlp->timer, on_timer, ms, 0);
}

void otlp_add(struct otlp *otlp, struct slice span)
{
	struct spans *waiting = &otlp->waiting;
	size_t before = waiting->text.len;
	if ((before == 0 || buf_append_char(&waiting->text, ',') == 0) && buf_append(&waiting->text, span) == 0) {
		waiting->count++;
		wake(otlp, SOON_MS);
		if (waiting->count == BATCH_SPANS && !otlp->failures && !otlp->busy)
			uv_timer_start(&otlp->timer, on_timer, 0, 0);
		return;
	}
	waiting->text.len = before;
	otlp->dropped++;
}

static void next(struct otlp *otlp)
{
	if (otlp->waiting.count)
		wake(otlp, otlp->waiting.count >= BATCH_SPANS || otlp->closing ? 0 : SOON_MS);
	else if (otlp->closing)
		uv_timer_start(&otlp->last, on_last, 0, 0);
}

static void forget_batch(struct otlp *otlp)
{
	buf_consume(&otlp->sending.text, otlp->sending.text.len);
	otlp->sending.count = 0;
	otlp->failures = 0;
}

static void complain(struct otlp *otlp, const char *what, const char *reason)
{
	if (!otlp->complained)
		log_warning("tracing: the collector %s: %s", what, reason);
	otlp->complained = true;
}

static void try_later(struct otlp *otlp, uint64_t least_ms, const char *reason)
{
	complain(otlp, "takes no spans, trying again", reason);
	uint64_t ms = (uint64_t)RETRY_MIN_MS << (otlp->failures < 5 ? otlp->failures : 5);
	otlp->failures++;
	ms = ms > least_ms ? ms : least_ms;
	wake(otlp, ms < RETRY_MAX_MS ? ms : RETRY_MAX_MS);
}

/* Of a batch that was taken: how many spans of it were not. */
static uint64_t rejected(const struct otlp *otlp)
{
	struct json_failure failure;
	CLEANUP(json_decref_ptr) json_t *answer = json_parse(buf_peek(&otlp->said), 8, &failure);
	const json_t *partial = json_object_get(answer, "partialSuccess");
	struct slice text;
	uint64_t count = 0;
	/* A 64-bit integer: protobuf's JSON has it as a string, and a number is to be taken, too. */
	if (!json_get_u64(partial, "rejectedSpans", &count) && json_get_string(partial, "rejectedSpans", &text) &&
	    slice_to_u64(text, UINT32_MAX, &count) < 0)
		count = 0;
	return count < otlp->sending.count ? count : otlp->sending.count;
}

static void taken(struct otlp *otlp)
{
	uint64_t lost = rejected(otlp);
	if (lost)
		complain(otlp, "refuses spans", "its answer says so of some");
	else if (otlp->complained)
		log_info("tracing: the collector takes spans again");
	otlp->complained = lost > 0;
	otlp->sent += otlp->sending.count - lost;
	otlp->dropped += lost;
	forget_batch(otlp);
	next(otlp);
}

static bool is_for_later(long status)
{
	return status == 429 || status == 502 || status == 503 || status == 504;
}

static void on_done(struct curl_transfer *transfer, CURLcode result)
{
	struct otlp *otlp = transfer->ctx;
	long status = 0;
	curl_off_t after_s = 0;
	char reason[40];
	curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(transfer->easy, CURLINFO_RETRY_AFTER, &after_s);
	curl_transfer_stop(otlp->options.curl, transfer);
	otlp->busy = false;
	snprintf(reason, sizeof reason, "it answers %ld", status);
	if (result != CURLE_OK) {
		try_later(otlp, 0, otlp->error[0] ? otlp->error : curl_easy_strerror(result));
	} else if (is_for_later(status)) {
		try_later(otlp, after_s > 0 && after_s <= RETRY_MAX_MS / 1000 ? (uint64_t)after_s * 1000 : 0, reason);
	} else if (status / 100 == 2) {
		taken(otlp);
	} else {
		complain(otlp, "refuses spans", reason);
		otlp->dropped += otlp->sending.count;
		forget_batch(otlp);
		next(otlp);
	}
}

static size_t on_said(char *bytes, size_t size UNUSED, size_t len, void *ctx)
{
	struct otlp *otlp = ctx;
	size_t room = SAID_MAX - otlp->said.len;
	if (buf_append(&otlp->said, slice_of(bytes, len < room ? len : room)) < 0)
		buf_consume(&otlp->said, otlp->said.len);
	return len; /* the rest is of no interest */
}

static int ask(struct otlp *otlp)
{
	if (!otlp->sending.count) {
		struct spans empty = otlp->sending;
		otlp->sending = otlp->waiting;
		otlp->waiting = empty;
	}
	buf_consume(&otlp->body, otlp->body.len);
	buf_consume(&otlp->said, otlp->said.len);
	otlp->error[0] = '\0';
	int r = buf_append(&otlp->body, buf_peek(&otlp->head));
	if (r == 0)
		r = buf_append(&otlp->body, buf_peek(&otlp->sending.text));
	if (r == 0)
		r = buf_append(&otlp->body, SLICE(TAIL));
	if (r < 0)
		return r;
	struct slice body = buf_peek(&otlp->body);
	if (curl_easy_setopt(otlp->transfer.easy, CURLOPT_POSTFIELDS, body.data) != CURLE_OK ||
	    curl_easy_setopt(otlp->transfer.easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.len) != CURLE_OK)
		return -1;
	r = curl_transfer_start(otlp->options.curl, &otlp->transfer);
	otlp->busy = r == 0;
	return r;
}

static void on_timer(uv_timer_t *timer)
{
	struct otlp *otlp = timer->data;
	if (!otlp->busy && (otlp->waiting.count || otlp->sending.count) && ask(otlp) < 0)
		try_later(otlp, 0, "no request could be made");
}

/* --- life -------------------------------------------------------------------- */

/* name=value,… as in OTEL_EXPORTER_OTLP_HEADERS. */
static bool add_header(struct otlp *otlp, struct slice member)
{
	struct slice name;
	struct slice value = slice_trim(member);
	int len = 0;
	CLEANUP(buf_deinit) struct buf line = BUF_MAX(8192);
	if (!slice_next(&value, '=', &name) || !http_is_token(slice_trim(name)) || !value.len)
		return false;
	name = slice_trim(name);
	/* A length of 0 would mean strlen(). */
	char *plain = curl_easy_unescape(otlp->transfer.easy, value.data, (int)value.len, &len);
	if (!plain)
		return false;
	struct slice text = slice_of(plain, (size_t)len);
	int r = text.len && http_is_value(text) ? buf_printf(&line, "%.*s: %.*s", SLICE_FMT(name), SLICE_FMT(text)) : -1;
	secret_wipe(plain, (size_t)len);
	curl_free(plain);
	char *joined = r == 0 ? slice_dup(buf_peek(&line)) : NULL;
	struct curl_slist *longer = joined ? curl_slist_append(otlp->headers, joined) : NULL;
	if (joined)
		secret_wipe(joined, strlen(joined));
	free(joined);
	if (line.len)
		secret_wipe(line.data + line.start, line.len);
	otlp->headers = longer ? longer : otlp->headers;
	return longer != NULL;
}

static bool add_headers(struct otlp *otlp, struct slice list)
{
	static const char *const ours[] = {"Content-Type: application/json", "Accept: application/json", "Expect:"};
	struct slice member;
	for (size_t i = 0; i < ARRAY_LEN(ours); i++) {
		struct curl_slist *longer = curl_slist_append(otlp->headers, ours[i]);
		if (!longer)
			return false;
		otlp->headers = longer;
	}
	while (list.len && slice_next(&list, ',', &member))
		if (!add_header(otlp, member))
			return false;
	return true;
}

/* What may hold a secret belongs into the headers: a URL is shown by check-config. */
static bool is_usable(const char *url)
{
	CURLU *parts = curl_url();
	char *found[3] = {NULL};
	bool usable = parts && curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK;
	usable = usable && curl_url_get(parts, CURLUPART_SCHEME, &found[0], 0) == CURLUE_OK &&
		 (strcmp(found[0], "http") == 0 || strcmp(found[0], "https") == 0);
	usable = usable && curl_url_get(parts, CURLUPART_USER, &found[1], 0) == CURLUE_NO_USER &&
		 curl_url_get(parts, CURLUPART_PASSWORD, &found[2], 0) == CURLUE_NO_PASSWORD;
	for (size_t i = 0; i < ARRAY_LEN(found); i++)
		curl_free(found[i]);
	curl_url_cleanup(parts);
	return usable;
}

static int put_resource(struct buf *out, const char *version, const char *instance)
{
	const struct {
		const char *key, *value;
	} attributes[] = {{"service.name", "spritegate"}, {"service.version", version}, {"service.instance.id", instance}};
	int r = buf_append(out, SLICE("{\"resourceSpans\":[{\"resource\":{\"attributes\":["));
	for (size_t i = 0; r == 0 && i < ARRAY_LEN(attributes); i++) {
		r = buf_printf(out, "%s{\"key\":\"%s\",\"value\":{\"stringValue\":", i ? "," : "", attributes[i].key);
		if (r == 0)
			r = json_text_string(out, slice_str(attributes[i].value));
		if (r == 0)
			r = buf_append(out, SLICE("}}"));
	}
	return r < 0 ? r : buf_append(out, SLICE("]},\"scopeSpans\":[{\"scope\":{\"name\":\"spritegate\"},\"spans\":["));
}

static int set_options(struct otlp *otlp)
{
	CURL *easy = otlp->transfer.easy;
	int r = curl_set_common(easy);
	if (r < 0)
		return r;
	CURLcode code = curl_easy_setopt(easy, CURLOPT_URL, otlp->options.url);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_HTTPHEADER, otlp->headers);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_said);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_WRITEDATA, (void *)otlp);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, otlp->error);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)ANSWER_MS);
	return code == CURLE_OK ? 0 : -1;
}

static void give_back(struct otlp *otlp)
{
	if (otlp->transfer.easy)
		curl_easy_cleanup(otlp->transfer.easy);
	curl_slist_free_all(otlp->headers);
	struct buf *bufs[] = {&otlp->head, &otlp->waiting.text, &otlp->sending.text, &otlp->body, &otlp->said};
	for (size_t i = 0; i < ARRAY_LEN(bufs); i++)
		buf_deinit(bufs[i]);
	free(otlp);
}

static const char *prepare(struct otlp *otlp)
{
	const struct otlp_options *options = &otlp->options;
	if (!is_usable(options->url))
		return "expected http://host:port/v1/traces or https, without a user name";
	if (!otlp->transfer.easy)
		return "out of memory";
	if (!add_headers(otlp, secret_peek(options->headers)))
		return "otlp_headers: expected name=value,name=value with percent-encoded values";
	if (put_resource(&otlp->head, options->version, options->instance) < 0 || set_options(otlp) < 0)
		return "out of memory";
	return NULL;
}

struct otlp *otlp_new(const struct otlp_options *options, char error[OTLP_ERROR_LEN])
{
	struct otlp *otlp = calloc(1, sizeof *otlp);
	snprintf(error, OTLP_ERROR_LEN, "out of memory");
	if (!otlp)
		return NULL;
	otlp->options = *options;
	otlp->head = BUF_MAX(HEAD_MAX);
	otlp->waiting.text = otlp->sending.text = BUF_MAX(OTLP_BATCH_BYTES);
	otlp->body = BUF_MAX(OTLP_BATCH_BYTES + HEAD_MAX + sizeof TAIL);
	otlp->said = BUF_MAX(SAID_MAX);
	otlp->transfer = (struct curl_transfer){.easy = curl_easy_init(), .done = on_done, .ctx = otlp};
	const char *fault = prepare(otlp);
	if (fault) {
		snprintf(error, OTLP_ERROR_LEN, "%s", fault);
		give_back(otlp);
		return NULL;
	}
	uv_timer_init(options->loop, &otlp->timer);
	uv_timer_init(options->loop, &otlp->last);
	otlp->timer.data = otlp->last.data = otlp;
	return otlp;
}

static void on_closed(uv_handle_t *handle)
{
	struct otlp *otlp = handle->data;
	if (--otlp->open_handles)
		return;
	void (*on_freed)(void *) = otlp->on_freed;
	void *ctx = otlp->freed_ctx;
	uint64_t left = otlp->waiting.count + otlp->sending.count;
	if (left)
		log_warning("tracing: %llu spans were not sent", (unsigned long long)left);
	give_back(otlp);
	on_freed(ctx);
}

static void on_last(uv_timer_t *timer)
{
	struct otlp *otlp = timer->data;
	curl_transfer_stop(otlp->options.curl, &otlp->transfer);
	otlp->open_handles = 2;
	uv_close((uv_handle_t *)&otlp->timer, on_closed);
	uv_close((uv_handle_t *)&otlp->last, on_closed);
}

void otlp_free(struct otlp *otlp, void (*on_freed)(void *ctx), void *ctx)
{
	if (!otlp) {
		on_freed(ctx);
		return;
	}
	otlp->on_freed = on_freed;
	otlp->freed_ctx = ctx;
	otlp->closing = true;
	bool rest = otlp->waiting.count || otlp->sending.count;
	uv_timer_start(&otlp->last, on_last, rest ? LAST_MS : 0, 0);
	if (rest && !otlp->busy)
		uv_timer_start(&otlp->timer, on_timer, 0, 0);
}

uint64_t otlp_sent(const struct otlp *otlp)
{
	return otlp ? otlp->sent : 0;
}

uint64_t otlp_dropped(const struct otlp *otlp)
{
	return otlp ? otlp->dropped : 0;
}
