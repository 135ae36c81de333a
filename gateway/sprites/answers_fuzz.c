/*
 * answers_fuzz - no body, whatever the status, makes a verdict that says too much
 *
 * Input: byte 0 the call, byte 1 the status (100 + 2 × byte), the rest is the body.
 */
#include "gateway/sprites/answers.h"

#include <stdlib.h>
#include <string.h>

static void check(bool holds)
{
	if (!holds)
		abort();
}

static void check_list(const struct answer *answer)
{
	struct verdict verdict;
	struct slice token;
	CLEANUP(json_decref_ptr) json_t *page = answers_page(&verdict, answer, &token);
	check((page != NULL) == (verdict.code == PROVIDER_OK));
	check(!page || json_is_array(json_object_get(page, "sprites")));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	enum sprites_call call = data[0] % SPRITES_CALLS;
	struct answer answer = {.status = 100 + 2u * data[1], .body = slice_of((const char *)data + 2, size - 2), .failure = ""};
	struct verdict verdict;
	if (call == SPRITES_LIST) {
		check_list(&answer);
		return 0;
	}
	answers_judge(&verdict, call, "sg-1", &answer);
	check(strlen(verdict.detail) > 0 && strlen(verdict.detail) < ANSWERS_DETAIL);
	check(verdict.status == answer.status);
	check(verdict.code != PROVIDER_GONE || answer.status == 404 || answer.status == 410);
	check(verdict.code != PROVIDER_OK || answer.status < 300 || answer.status >= 409);
	check(call != SPRITES_CHECKPOINT || verdict.code != PROVIDER_OK || verdict.checkpoint[0]);
	check(strlen(verdict.checkpoint) < ANSWERS_CHECKPOINT && !strpbrk(verdict.checkpoint, "/?#% "));
	bool names_it = answer.body.len && memmem(answer.body.data, answer.body.len, "sg-", 3);
	if (call == SPRITES_GET || call == SPRITES_LABEL)
		check(verdict.code != PROVIDER_OK || names_it || memchr(answer.body.data, '\\', answer.body.len));
	return 0;
}
