#include "policy/cli_common.h"

#include "gateway/base/json_text.h"
#include "gateway/json/json.h"

#include <errno.h>
#include <stdlib.h>

#define LINE_MAX_BYTES 65536

/* --- export ------------------------------------------------------------------------ */

/* {"kid": …} and every field of the record as text, on one line. */
static int put_line(struct buf *out, const char *kid, const struct record *record)
{
	struct slice pairs[2 * RECORD_FIELDS];
	char numbers[RECORD_FIELDS][21];
	size_t count = record_write(record, pairs, numbers);
	int r = buf_printf(out, "{\"kid\":\"%s\"", kid);
	for (size_t i = 0; r == 0 && i < count; i += 2) {
		r = buf_printf(out, ",\"%.*s\":", SLICE_FMT(pairs[i]));
		if (r == 0)
			r = json_text_string(out, pairs[i + 1]);
	}
	return r < 0 ? r : buf_append(out, SLICE("}\n"));
}

static int export_one(struct cli *cli, const char *kid, const char *actor)
{
	CLEANUP(buf_deinit) struct buf line = BUF_MAX(LINE_MAX_BYTES);
	struct record record;
	int r = store_load(cli->store, slice_str(kid), &record);
	if (r == STORE_E_MISSING || (r != STORE_E_REDIS && actor && strcmp(record.actor, actor) != 0))
		return 0; /* ended meanwhile, or somebody else's */
	if (r == STORE_E_BROKEN) {
		fprintf(cli->options->err, "spritegate token export: %s is left out: %s\n", kid, store_reason(cli->store));
		return EXIT_FAILURE;
	}
	if (r)
		return cli_fail_store(cli, r);
	if (put_line(&line, kid, &record) < 0)
		return cli_fail(cli, "out of memory");
	fprintf(cli->options->out, "%.*s", SLICE_FMT(buf_peek(&line)));
	return 0;
}

int cli_token_export(struct cli *cli, int argc, char **argv)
{
	CLEANUP(free_ptr) store_name *kids = NULL;
	size_t count = 0;
	bool of_actor = argc == 2 && strcmp(argv[0], "--actor") == 0;
	if (argc && !of_actor)
		return cli_fail_usage(cli, "takes --actor NAME only");
	int worst = store_list(cli->store, STORE_TOKENS, &kids, &count);
	if (worst)
		return cli_fail_store(cli, worst);
	for (size_t i = 0; i < count; i++) {
		int r = export_one(cli, kids[i], of_actor ? argv[1] : NULL);
		worst = r > worst ? r : worst;
	}
	return fflush(cli->options->out) == 0 ? worst : cli_fail(cli, "the output cannot be written");
}

/* --- import ------------------------------------------------------------------------ */

struct import {
	struct cli *cli;
	unsigned line;
	bool json;
};

/* `reason` is plain text without quotes. */
static int refuse(const struct import *import, const char *reason)
{
	fprintf(import->cli->options->err, "spritegate token import: line %u: %s\n", import->line, reason);
	if (import->json)
		fprintf(import->cli->options->out, "{\"line\":%u,\"imported\":false,\"problem\":\"%s\"}\n", import->line, reason);
	return EXIT_FAILURE;
}

/* NULL, or what is wrong. */
static const char *read_record(struct slice text, char kid[TOKEN_KID_LEN + 1], struct record *record)
{
	struct json_failure failure;
	CLEANUP(json_decref_ptr) json_t *object = json_parse(text, 2, &failure);
	const char *name;
	json_t *value;
	struct slice its_kid;
	*record = (struct record){0};
	if (!json_get_string(object, "kid", &its_kid) || !token_kid_is_valid(its_kid))
		return "it is no JSON object with the kid of a token";
	memcpy(kid, its_kid.data, TOKEN_KID_LEN);
	kid[TOKEN_KID_LEN] = '\0';
	json_object_foreach(object, name, value)
	{
		if (strcmp(name, "kid") == 0)
			continue;
		if (!json_is_string(value) ||
		    record_read_field(record, slice_str(name), slice_of(json_string_value(value), json_string_length(value))) < 0)
			return "it has a field that is not known or cannot be read";
	}
	const uint64_t needed = RECORD_BIT(RECORD_MAC) | RECORD_BIT(RECORD_PEP) | RECORD_BIT(RECORD_STATUS) | RECORD_BIT(RECORD_ACTOR);
	if ((record->present & needed) != needed || !record_actor_is_valid(slice_str(record->actor)) ||
	    strlen(record->mac) != TOKEN_MAC_LEN)
		return "it is no record of a token: mac, pep, status and actor must be there";
	return NULL;
}

static int import_one(const struct import *import, struct slice text)
{
	struct cli *cli = import->cli;
	char kid[TOKEN_KID_LEN + 1], pep[TOKEN_PEPPER_ID_LEN + 1], problem[RECORD_PROBLEM];
	struct record record, rules, there;
	const char *wrong = read_record(text, kid, &record);
	if (wrong)
		return refuse(import, wrong);
	if (token_pepper_id(cli->options->pepper, pep) < 0 || strcmp(pep, record.pep) != 0)
		return refuse(import, "its secret was stored under another pepper: it would be refused for ever");
	int r = cli_rules_of(cli, &record, &rules);
	if (r == STORE_E_MISSING || r == STORE_E_BROKEN)
		return refuse(import, "the policy that it follows is not there, or cannot be read");
	if (r)
		return cli_fail_store(cli, r);
	if (!record_is_usable(&rules, problem))
		return refuse(import, problem);
	r = store_watch(cli->store, STORE_TOKENS, slice_str(kid));
	r = r ? r : store_load(cli->store, slice_str(kid), &there);
	if (r == 0 || r == STORE_E_BROKEN)
		return refuse(import, "there is such a token already; it stays as it is");
	r = r == STORE_E_MISSING ? store_create(cli->store, slice_str(kid), &record) : r;
	if (r)
		return cli_fail_store(cli, r);
	if (import->json)
		fprintf(cli->options->out, "{\"line\":%u,\"imported\":true,\"kid\":\"%s\"}\n", import->line, kid);
	else
		fprintf(cli->options->out, "%s\n", kid);
	return 0;
}

static int import_all(struct import *import, FILE *file)
{
	CLEANUP(free_ptr) char *text = NULL;
	size_t cap = 0;
	int worst = 0;
	ssize_t len;
	for (import->line = 1; (len = getline(&text, &cap, file)) >= 0; import->line++) {
		int r = len > 1 ? import_one(import, slice_of(text, (size_t)len)) : 0;
		worst = r > worst ? r : worst;
	}
	return ferror(file) ? cli_fail(import->cli, "the file cannot be read") : worst;
}

int cli_token_import(struct cli *cli, int argc, char **argv)
{
	struct import import = {.cli = cli, .json = argc == 2 && strcmp(argv[1], "--json") == 0};
	if (argc != 1 + import.json)
		return cli_fail_usage(
			cli, "needs a FILE that `spritegate token export` has written, or - for standard input; takes --json after it");
	if (!cli->options->pepper || !cli->options->pepper->len)
		return cli_fail(cli, "SPRITEGATE_PEPPER is not set: it must be the one that the tokens were made with");
	if (strcmp(argv[0], "-") == 0)
		return import_all(&import, cli->options->in);
	FILE *file = fopen(argv[0], "re");
	if (!file)
		return cli_fail(cli, strerror(errno));
	int r = import_all(&import, file);
	fclose(file);
	return r;
}
