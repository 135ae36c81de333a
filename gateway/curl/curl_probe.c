#include "gateway/curl/curl_probe.h"

#include "gateway/base/clock.h"
#include "gateway/curl/curl_driver.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static size_t drop(char *data UNUSED, size_t size, size_t count, void *ctx UNUSED)
{
	return size * count;
}

static size_t keep(char *data, size_t size, size_t count, void *ctx)
{
	return buf_append(ctx, slice_of(data, size * count)) < 0 ? 0 : size * count;
}

static CURLcode set_token(CURL *easy, const struct secret *token)
{
	struct slice text = secret_peek(token);
	CLEANUP(free_ptr) char *copy = slice_dup(text);
	if (!copy)
		return CURLE_OUT_OF_MEMORY;
	CURLcode code = curl_easy_setopt(easy, CURLOPT_XOAUTH2_BEARER, copy);
	secret_wipe(copy, text.len);
	return code == CURLE_OK ? curl_easy_setopt(easy, CURLOPT_HTTPAUTH, CURLAUTH_BEARER) : code;
}

static CURLcode set_up(CURL *easy, const struct curl_probe *probe, char error[CURL_ERROR_SIZE])
{
	const struct {
		CURLoption option;
		long value;
	} numbers[] = {{CURLOPT_NOSIGNAL, 1}, {CURLOPT_TIMEOUT_MS, probe->timeout_ms}, {CURLOPT_FOLLOWLOCATION, 0}};
	const struct {
		CURLoption option;
		const char *value;
	} texts[] = {{CURLOPT_URL, probe->url},
		     {CURLOPT_PROXY, ""},
		     {CURLOPT_PROTOCOLS_STR, "http,https"},
		     {CURLOPT_UNIX_SOCKET_PATH, probe->unix_path}};
	CURLcode code = curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, error);
	for (size_t i = 0; code == CURLE_OK && i < ARRAY_LEN(numbers); i++)
		code = curl_easy_setopt(easy, numbers[i].option, numbers[i].value);
	for (size_t i = 0; code == CURLE_OK && i < ARRAY_LEN(texts); i++)
		if (texts[i].value)
			code = curl_easy_setopt(easy, texts[i].option, texts[i].value);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, probe->body ? keep : drop);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_WRITEDATA, probe->body);
	bool own_ca = probe->ca_file && *probe->ca_file;
	if (code == CURLE_OK && own_ca)
		code = curl_easy_setopt(easy, CURLOPT_CAINFO, probe->ca_file);
	if (code == CURLE_OK && own_ca)
		code = curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	return code == CURLE_OK && probe->token ? set_token(easy, probe->token) : code;
}

int curl_probe(const struct curl_probe *probe, struct curl_probe_result *result)
{
	char error[CURL_ERROR_SIZE] = "";
	*result = (struct curl_probe_result){0};
	CURL *easy = curl_easy_init();
	if (!easy)
		return -ENOMEM;
	uint64_t start = clock_mono_us();
	CURLcode code = set_up(easy, probe, error);
	if (code == CURLE_OK)
		code = curl_easy_perform(easy);
	if (code == CURLE_OK)
		code = curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &result->status);
	if (code != CURLE_OK)
		snprintf(result->error, sizeof result->error, "%s", *error ? error : curl_easy_strerror(code));
	result->took_us = clock_mono_us() - start;
	curl_easy_cleanup(easy);
	return 0;
}
