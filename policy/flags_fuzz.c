#include "policy/flags.h"
#include "policy/limits.h"

#include <stdlib.h>

#define ARGS_MAX 40

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(struct flags *flags)
{
	struct record *r = &flags->record;
	char problem[RECORD_PROBLEM];
	record_fill(r);
	if (!record_is_usable(r, problem))
		return;
	bool whole = record_actor_is_valid(slice_str(r->actor)) && r->rate_n && r->rate_per_ms && r->burst && r->conc && r->max_ms;
	bool exact = (double)r->rate_per_ms * 1000 / (double)r->rate_n * (double)r->burst < 9007199254740992.0;
	if (!whole || !exact || (r->bud_ms && r->max_ms > r->bud_ms))
		abort();
}

/* The arguments stand between NUL bytes. What is taken gives a record that the admission script accepts and can count with. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP(free_ptr) char *text = slice_dup(slice_of((const char *)data, size));
	char *argv[ARGS_MAX];
	int argc = 0;
	for (size_t at = 0; text && at < size && argc < ARGS_MAX; at += strlen(text + at) + 1)
		argv[argc++] = text + at;
	struct flags flags;
	int r = flags_parse(FLAGS_TOKEN_CREATE, argc, argv, &flags);
	if (r == 0 && !flags.help)
		check(&flags);
	if (r != 0 && !flags.problem[0])
		abort();
	return 0;
}
