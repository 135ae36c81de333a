#include "gateway/sprites/client.h"

#include "gateway/base/clock.h"
#include "gateway/sprites/frames.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define BODY_MAX  ((size_t)1 << 20)
#define PAGES_MAX 10000
#define URL_MAX   8192

struct client {
	struct client_options options;
	char *base_url;
	struct secret token;
	struct curl_slist *headers, *json_headers;
	struct call *calls;
	size_t count;
};

/* One request under way; for a list, one after another. */
struct call {
	struct call *next, **link;
	struct client *client;
	struct curl_transfer transfer;
	enum sprites_call kind;
	char *name; /* of the Sprite, or the prefix of a list */
	struct buf body;
	char curl_error[CURL_ERROR_SIZE];
	uint64_t started_us;
	provider_found found;
	client_done done;
	void *ctx;
	unsigned pages;
	struct provider_limit limit; /* that the pages told so far */
	char *policy; /* that should be read; NULL = ANSWERS_POLICY */
	char *token; /* the page that is being asked for; NULL = the first */
};

/* --- life of a call --- */

static void call_free(struct call *call)
{
	if (call->link) {
		*call->link = call->next;
		if (call->next)
			call->next->link = call->link;
		call->client->count--;
	}
	curl_transfer_stop(call->client->options.driver, &call->transfer);
	curl_easy_cleanup(call->transfer.easy);
	buf_deinit(&call->body);
	free(call->name);
	free(call->token);
	free(call->policy);
	free(call);
}

static void call_free_ptr(struct call **call)
{
	if (*call)
		call_free(*call);
}

static size_t on_body(char *data, size_t size, size_t count, void *ctx)
{
	struct call *call = ctx;
	/* Anything but the whole length makes libcurl end the transfer with an error. */
	return buf_append(&call->body, slice_of(data, size * count)) == 0 ? size * count : 0;
}

static void on_done(struct curl_transfer *transfer, CURLcode result);

static struct call *call_new(struct client *client, enum sprites_call kind, const char *name, client_done done, void *ctx)
{
	struct call *call = calloc(1, sizeof *call);
	if (!call)
		return NULL;
	*call = (struct call){.client = client, .kind = kind, .done = done, .ctx = ctx, .body = BUF_MAX(BODY_MAX)};
	call->transfer = (struct curl_transfer){.easy = curl_easy_init(), .done = on_done, .ctx = call};
	call->name = slice_dup(slice_str(name));
	if (!call->transfer.easy || !call->name) {
		call_free(call);
		return NULL;
	}
	return call;
}

static void call_link(struct call *call)
{
	struct client *client = call->client;
	call->link = &client->calls;
	call->next = client->calls;
	if (call->next)
		call->next->link = &call->next;
	client->calls = call;
	client->count++;
}

/* --- sending --- */

static int set_options(struct call *call, const char *method, const char *url, const char *json)
{
	struct client *client = call->client;
	CURL *easy = call->transfer.easy;
	int r = curl_set_common(easy);
	if (r < 0)
		return r;
	CURLcode code = curl_easy_setopt(easy, CURLOPT_URL, url);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_HTTPHEADER, json ? client->json_headers : client->headers);
	if (code == CURLE_OK && json)
		code = curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS, json);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_WRITEDATA, (void *)call);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call->curl_error);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)client->options.connect_timeout_ms);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)client->options.timeout_ms);
	/* What is sent on a kept connection that ends without an answer curl sends again by itself. Of a creation the first may have taken effect,
	 * and the second be refused. */
	if (code == CURLE_OK && call->kind == SPRITES_CREATE)
		code = curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
	return code == CURLE_OK ? 0 : code == CURLE_OUT_OF_MEMORY ? -ENOMEM : -EIO;
}

/* `path` begins after "/v1/sprites". The first request of a call links it to the client. */
static int send_request(struct call *call, const char *method, const char *path, const char *json)
{
	struct client *client = call->client;
	CLEANUP(buf_deinit) struct buf url = BUF_MAX(URL_MAX);
	int r = buf_printf(&url, "%s/v1/sprites%s", client->base_url, path);
	if (r == 0)
		r = set_options(call, method, buf_peek(&url).data, json);
	if (r == 0)
		r = curl_transfer_start(client->options.driver, &call->transfer);
	if (r < 0)
		return r;
	call->started_us = clock_mono_us();
	if (!call->link)
		call_link(call);
	return 0;
}

/* One request about one Sprite. `rest` follows the name, `policy` is what the answer is compared with. */
static int ask_about(struct client *client, enum sprites_call kind, const char *method, const char *name, const char *rest,
		     const char *json, const char *policy, client_done done, void *ctx)
{
	if (client->count >= client->options.max_calls)
		return -EBUSY;
	CLEANUP(call_free_ptr) struct call *call = call_new(client, kind, name, done, ctx);
	CLEANUP(buf_deinit) struct buf path = BUF_MAX(URL_MAX);
	if (!call || (policy && !(call->policy = slice_dup(slice_str(policy)))))
		return -ENOMEM;
	int r = buf_append_char(&path, '/');
	if (r == 0)
		r = frames_percent_encode(&path, slice_str(name));
	if (r == 0)
		r = buf_printf(&path, "%s", rest);
	if (r == 0)
		r = send_request(call, method, buf_peek(&path).data, json);
	if (r == 0)
		call = NULL;
	return r;
}

static int ask(struct client *client, enum sprites_call kind, const char *method, const char *name, const char *rest, const char *json,
	       client_done done, void *ctx)
{
	return ask_about(client, kind, method, name, rest, json, NULL, done, ctx);
}

int client_create(struct client *client, const char *name, client_done done, void *ctx)
{
	if (client->count >= client->options.max_calls)
		return -EBUSY;
	/* The last one is left out when there is none. */
	CLEANUP(json_decref_ptr) json_t *body = json_pack("{s:s, s:[s, s*]}", "name", name, "labels", "spritegate", client->options.label);
	CLEANUP(free_ptr) char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	CLEANUP(call_free_ptr) struct call *call = call_new(client, SPRITES_CREATE, name, done, ctx);
	if (!text || !call)
		return -ENOMEM;
	int r = send_request(call, "POST", "", text);
	if (r == 0)
		call = NULL;
	return r;
}

int client_get(struct client *client, const char *name, client_done done, void *ctx)
{
	return ask(client, SPRITES_GET, "GET", name, "", NULL, done, ctx);
}

int client_label_taken(struct client *client, const char *name, uint64_t parking, uint64_t taker, client_done done, void *ctx)
{
	char label[64];
	snprintf(label, sizeof label, ANSWERS_TAKEN_FORMAT, parking, taker);
	CLEANUP(json_decref_ptr) json_t *body = json_pack("{s:[s, s*, s]}", "labels", "spritegate", client->options.label, label);
	CLEANUP(free_ptr) char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	return text ? ask(client, SPRITES_LABEL, "PUT", name, "", text, done, ctx) : -ENOMEM;
}

int client_delete(struct client *client, const char *name, client_done done, void *ctx)
{
	return ask(client, SPRITES_DELETE, "DELETE", name, "", NULL, done, ctx);
}

int client_close_network(struct client *client, const char *name, client_done done, void *ctx)
{
	return ask(client, SPRITES_SET_POLICY, "POST", name, "/policy/network", ANSWERS_POLICY, done, ctx);
}

int client_check_network(struct client *client, const char *name, client_done done, void *ctx)
{
	return ask(client, SPRITES_GET_POLICY, "GET", name, "/policy/network", NULL, done, ctx);
}

int client_open_network(struct client *client, const char *name, const char *policy, client_done done, void *ctx)
{
	return ask(client, SPRITES_SET_POLICY, "POST", name, "/policy/network", policy, done, ctx);
}

int client_check_open(struct client *client, const char *name, const char *policy, client_done done, void *ctx)
{
	return ask_about(client, SPRITES_GET_POLICY, "GET", name, "/policy/network", NULL, policy, done, ctx);
}

int client_checkpoint(struct client *client, const char *name, client_done done, void *ctx)
{
	return ask(client, SPRITES_CHECKPOINT, "POST", name, "/checkpoint", "{\"comment\":\"clean\"}", done, ctx);
}

int client_restore(struct client *client, const char *name, const char *checkpoint, client_done done, void *ctx)
{
	CLEANUP(buf_deinit) struct buf rest = BUF_MAX(1024);
	int r = buf_append(&rest, SLICE("/checkpoints/"));
	if (r == 0)
		r = frames_percent_encode(&rest, slice_str(checkpoint));
	if (r == 0)
		r = buf_append(&rest, SLICE("/restore"));
	if (r == 0)
		r = buf_append_char(&rest, '\0');
	return r < 0 ? r : ask(client, SPRITES_RESTORE, "POST", name, buf_peek(&rest).data, "{}", done, ctx);
}

int client_kill(struct client *client, const char *name, const char *session, const char *signal, client_done done, void *ctx)
{
	CLEANUP(buf_deinit) struct buf rest = BUF_MAX(1024);
	int r = buf_append(&rest, SLICE("/exec/"));
	if (r == 0)
		r = frames_percent_encode(&rest, slice_str(session));
	if (r == 0)
		r = buf_append(&rest, SLICE("/kill?timeout=0s&signal="));
	if (r == 0)
		r = frames_percent_encode(&rest, slice_str(signal));
	if (r == 0)
		r = buf_append_char(&rest, '\0');
	return r < 0 ? r : ask(client, SPRITES_KILL, "POST", name, buf_peek(&rest).data, "", done, ctx);
}

static int send_page(struct call *call)
{
	CLEANUP(buf_deinit) struct buf path = BUF_MAX(URL_MAX);
	int r = buf_append(&path, SLICE("?max_results=50&prefix="));
	if (r == 0)
		r = frames_percent_encode(&path, slice_str(call->name));
	if (r == 0 && call->token)
		r = buf_append(&path, SLICE("&continuation_token="));
	if (r == 0 && call->token)
		r = frames_percent_encode(&path, slice_str(call->token));
	if (r == 0)
		r = buf_append_char(&path, '\0');
	return r < 0 ? r : send_request(call, "GET", buf_peek(&path).data, NULL);
}

int client_list(struct client *client, const char *prefix, provider_found found, client_done done, void *ctx)
{
	if (client->count >= client->options.max_calls)
		return -EBUSY;
	CLEANUP(call_free_ptr) struct call *call = call_new(client, SPRITES_LIST, prefix, done, ctx);
	if (!call)
		return -ENOMEM;
	call->found = found;
	int r = send_page(call);
	if (r == 0)
		call = NULL;
	return r;
}

/* --- answers --- */

static void observe(const struct call *call, const struct verdict *verdict)
{
	const struct sprites_observer *observer = &call->client->options.observer;
	if (observer->on_call)
		observer->on_call(observer->ctx, call->kind, clock_mono_us() - call->started_us, verdict->code, verdict->status);
}

static void finish(struct call *call, const struct verdict *verdict)
{
	client_done done = call->done;
	void *ctx = call->ctx;
	call_free(call);
	done(ctx, verdict);
}

static bool has_label(const json_t *sprite, const char *label)
{
	const json_t *labels = json_object_get(sprite, "labels");
	for (size_t i = 0; label && i < json_array_size(labels); i++)
		if (slice_equal(slice_str(json_string_value(json_array_get(labels, i))), slice_str(label)))
			return true;
	return false;
}

/* Names of others, which a server that ignores the prefix would send, are not passed on. */
static void report_names(const struct call *call, const json_t *page)
{
	const json_t *sprites = json_object_get(page, "sprites");
	for (size_t i = 0; i < json_array_size(sprites); i++) {
		const json_t *sprite = json_array_get(sprites, i);
		const char *name = json_string_value(json_object_get(sprite, "name"));
		if (slice_has_prefix(slice_str(name), slice_str(call->name)))
			call->found(call->ctx, name, has_label(sprite, call->client->options.label));
	}
}

/* Not every page need tell the limits. */
static void carry_limits(struct call *call, struct provider_limit *limit)
{
	if (!limit->running)
		limit->running = call->limit.running;
	if (!limit->paused)
		limit->paused = call->limit.paused;
	call->limit = *limit;
}

/* Asks for the page after `token`; 0, or what is wrong with it. */
static int next_page(struct call *call, struct slice token)
{
	CLEANUP(free_ptr) char *next = slice_dup(token);
	if (!next)
		return -ENOMEM;
	if (++call->pages >= PAGES_MAX || (call->token && strcmp(call->token, next) == 0))
		return -EINVAL;
	free(call->token);
	call->token = TAKE(next);
	buf_deinit(&call->body);
	curl_transfer_stop(call->client->options.driver, &call->transfer);
	curl_easy_reset(call->transfer.easy);
	return send_page(call);
}

static void page_done(struct call *call, const struct answer *answer)
{
	struct verdict verdict;
	struct slice token;
	CLEANUP(json_decref_ptr) json_t *page = answers_page(&verdict, answer, &token);
	observe(call, &verdict);
	if (page) {
		carry_limits(call, &verdict.limit);
		report_names(call, page);
	}
	int r = page && token.len ? next_page(call, token) : 0;
	if (r < 0)
		answers_fail(&verdict, r == -EINVAL ? PROVIDER_INVALID : PROVIDER_UNAVAILABLE,
			     r == -EINVAL ? "list: the pages never end" : "list: the next page could not be asked for");
	if (r < 0 || !page || !token.len)
		finish(call, &verdict);
}

static uint64_t number_field(struct call *call, const char *name)
{
	struct curl_header *field;
	uint64_t number;
	if (curl_easy_header(call->transfer.easy, name, 0, CURLH_HEADER, -1, &field) != CURLHE_OK ||
	    slice_to_u64(slice_trim(slice_str(field->value)), UINT64_MAX, &number) != 0)
		return UINT64_MAX;
	return number;
}

static struct rate_fields rate_fields(struct call *call)
{
	struct rate_fields rate = {.limit = number_field(call, "X-RateLimit-Limit"),
				   .remaining = number_field(call, "X-RateLimit-Remaining"),
				   .reset_ms = number_field(call, "X-RateLimit-Reset")};
	uint64_t now_ms = clock_wall_ms();
	if (rate.reset_ms == UINT64_MAX || rate.reset_ms > UINT64_MAX / 1000)
		rate.reset_ms = UINT64_MAX;
	else
		rate.reset_ms = rate.reset_ms * 1000 > now_ms ? rate.reset_ms * 1000 - now_ms : 0;
	return rate;
}

static struct answer answer_of(struct call *call, CURLcode result)
{
	struct answer answer = {.body = buf_peek(&call->body), .rate = RATE_FIELDS_NONE};
	long status = 0;
	curl_off_t retry_after = 0;
	curl_easy_getinfo(call->transfer.easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(call->transfer.easy, CURLINFO_RETRY_AFTER, &retry_after);
	if (result == CURLE_OK) {
		answer.status = (unsigned)status;
		answer.retry_after_ms = retry_after > 0 ? (uint64_t)retry_after * 1000 : 0;
		answer.rate = rate_fields(call);
	} else if (result == CURLE_WRITE_ERROR) {
		answer.failure = "the answer is longer than 1 MiB";
	} else {
		answer.failure = call->curl_error[0] ? call->curl_error : curl_easy_strerror(result);
	}
	return answer;
}

static void on_done(struct curl_transfer *transfer, CURLcode result)
{
	struct call *call = transfer->ctx;
	struct answer answer = answer_of(call, result);
	answer.policy = call->policy;
	if (call->kind == SPRITES_LIST) {
		page_done(call, &answer);
		return;
	}
	struct verdict verdict;
	answers_judge(&verdict, call->kind, call->name, &answer);
	observe(call, &verdict);
	finish(call, &verdict);
}

/* --- life --- */

static void wipe_list(struct curl_slist *list)
{
	for (struct curl_slist *line = list; line; line = line->next)
		secret_wipe(line->data, strlen(line->data));
	curl_slist_free_all(list);
}

static int add(struct curl_slist **list, const char *line)
{
	struct curl_slist *longer = curl_slist_append(*list, line);
	if (!longer)
		return -ENOMEM;
	*list = longer;
	return 0;
}

static int add_headers(struct client *client, struct curl_slist **list, const char *content_type)
{
	struct slice token = secret_peek(&client->token);
	CLEANUP(buf_deinit) struct buf line = BUF_MAX(8192);
	int r = buf_printf(&line, "Authorization: Bearer %.*s", SLICE_FMT(token));
	if (r == 0)
		r = add(list, buf_peek(&line).data);
	if (line.data)
		secret_wipe(line.data, line.cap);
	if (r == 0)
		r = add(list, "User-Agent: spritegate");
	if (r == 0)
		r = add(list, "Accept: application/json");
	if (r == 0 && content_type)
		r = add(list, content_type);
	return r;
}

struct client *client_new(const struct client_options *options)
{
	struct client *client = calloc(1, sizeof *client);
	if (!client)
		return NULL;
	client->options = *options;
	client->base_url = slice_dup(slice_str(options->base_url));
	int r = client->base_url ? secret_init(&client->token, secret_peek(options->token)) : -ENOMEM;
	if (r == 0)
		r = add_headers(client, &client->headers, NULL);
	if (r == 0)
		r = add_headers(client, &client->json_headers, "Content-Type: application/json");
	if (r < 0) {
		client_free(client);
		return NULL;
	}
	return client;
}

void client_free(struct client *client)
{
	if (!client)
		return;
	while (client->calls)
		call_free(client->calls);
	wipe_list(client->headers);
	wipe_list(client->json_headers);
	secret_deinit(&client->token);
	free(client->base_url);
	free(client);
}
