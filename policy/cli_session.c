#include "policy/cli_common.h"

#include "gateway/base/clock.h"

#include <stdlib.h>

struct session_list {
	struct store_session *sessions;
	size_t count;
};

static void free_sessions(struct session_list *list)
{
	free(list->sessions);
}

static int add_sessions(struct cli *cli, const char *kid, struct session_list *list)
{
	CLEANUP(free_ptr) struct store_session *found = NULL;
	size_t count = 0;
	int r = store_sessions(cli->store, slice_str(kid), &found, &count);
	struct store_session *grown = r == 0 ? realloc(list->sessions, (list->count + count + 1) * sizeof *grown) : NULL;
	if (!grown)
		return r ? r : STORE_E_REDIS;
	list->sessions = grown;
	if (count)
		memcpy(grown + list->count, found, count * sizeof *grown);
	list->count += count;
	return 0;
}

/* Of everybody, or of one token. */
static int find_sessions(struct cli *cli, const char *kid, struct session_list *list)
{
	CLEANUP(free_ptr) store_name *kids = NULL;
	size_t count = 0;
	if (kid)
		return add_sessions(cli, kid, list);
	int r = store_list(cli->store, STORE_SESSIONS, &kids, &count);
	for (size_t i = 0; r == 0 && i < count; i++)
		r = add_sessions(cli, kids[i], list);
	return r;
}

/* --- list ------------------------------------------------------------------------- */

static void print_session(const struct cli *cli, const struct store_session *session, bool json, bool first)
{
	char created[25], used[25], ends[25] = "";
	bool busy = session->lease[0];
	clock_format(session->created_ms, created);
	clock_format(session->used_ms, used);
	if (session->end_ms)
		clock_format(session->end_ms, ends);
	if (json)
		fprintf(cli->options->out,
			"%s{\"kid\":\"%s\",\"name\":\"%s\",\"busy\":%s,\"created\":\"%s\",\"used\":\"%s\",\"ends\":%s%s%s,\"sprite\":\"%s\"}",
			first ? "[" : ",\n ", session->kid, session->name, busy ? "true" : "false", created, used, *ends ? "\"" : "",
			*ends ? ends : "null", *ends ? "\"" : "", session->sprite);
	else
		fprintf(cli->options->out, "%-16s  %-20s  %-5s  %-24s  %-24s  %-24s  %s\n", session->kid, session->name,
			busy ? "busy" : "idle", created, used, *ends ? ends : "-", session->sprite);
}

static int run_list(struct cli *cli, int argc, char **argv)
{
	CLEANUP(free_sessions) struct session_list list = {0};
	bool json = argc == 1 && strcmp(argv[0], "--json") == 0;
	if (argc != json)
		return cli_fail_usage(cli, "takes --json only");
	int r = find_sessions(cli, NULL, &list);
	if (r)
		return cli_fail_store(cli, r);
	if (!json)
		fprintf(cli->options->out, "%-16s  %-20s  %-5s  %-24s  %-24s  %-24s  %s\n", "KID", "NAME", "STATE", "CREATED", "USED",
			"ENDS", "SPRITE");
	for (size_t i = 0; i < list.count; i++)
		print_session(cli, &list.sessions[i], json, i == 0);
	if (json)
		fputs(list.count ? "]\n" : "[]\n", cli->options->out);
	return EXIT_SUCCESS;
}

/* --- close ------------------------------------------------------------------------ */

struct close_words {
	const char *kid;
	bool all, yes, json;
	int names; /* KID/NAME, moved to the front of argv */
};

static bool is_session(const char *text)
{
	const char *slash = strchr(text, '/');
	return slash && slash[1] && token_kid_or_identity(slice_of(text, (size_t)(slash - text)));
}

static bool read_words(int argc, char **argv, struct close_words *words)
{
	for (int i = 0; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			words->json = true;
		else if (strcmp(argv[i], "--yes") == 0)
			words->yes = true;
		else if (strcmp(argv[i], "--all") == 0)
			words->all = true;
		else if (strcmp(argv[i], "--kid") == 0 && i + 1 < argc && !words->kid && token_kid_or_identity(slice_str(argv[i + 1])))
			words->kid = argv[++i];
		else if (is_session(argv[i]))
			argv[words->names++] = argv[i];
		else
			return false;
	}
	return (words->names > 0) + (words->kid != NULL) + words->all == 1;
}

/* The exit status. */
static int close_one(struct cli *cli, const struct store_session *session, bool json)
{
	const char *end = session->lease[0] ? "; its command is being ended" : "";
	char reason[400];
	int r = store_session_close(cli->store, session);
	if (r && r != STORE_E_MISSING) {
		snprintf(reason, sizeof reason, "%s/%s is not closed: Redis: %s", session->kid, session->name, store_reason(cli->store));
		return cli_fail(cli, reason);
	}
	if (json)
		fprintf(cli->options->out, "{\"kid\":\"%s\",\"name\":\"%s\",\"closed\":%s}\n", session->kid, session->name,
			r == 0 ? "true" : "false");
	else if (r == 0)
		fprintf(cli->options->out, "%s/%s is closed%s\n", session->kid, session->name, end);
	else
		fprintf(cli->options->out, "%s/%s had ended\n", session->kid, session->name);
	return EXIT_SUCCESS;
}

static int close_named(struct cli *cli, const char *word, bool json)
{
	CLEANUP(free_sessions) struct session_list list = {0};
	CLEANUP(free_ptr) char *kid = slice_dup(slice_of(word, strcspn(word, "/")));
	const char *name = strchr(word, '/') + 1;
	int r = kid ? add_sessions(cli, kid, &list) : STORE_E_REDIS;
	if (r)
		return cli_fail_store(cli, r);
	for (size_t i = 0; i < list.count; i++)
		if (strcmp(list.sessions[i].name, name) == 0)
			return close_one(cli, &list.sessions[i], json);
	fprintf(cli->options->err, "spritegate session close: there is no session %s: it may have ended\n", word);
	return EXIT_FAILURE;
}

/* The worst exit status. One that cannot be closed keeps none of the others open. */
static int close_many(struct cli *cli, const struct close_words *words)
{
	CLEANUP(free_sessions) struct session_list list = {0};
	int r = find_sessions(cli, words->kid, &list);
	if (r)
		return cli_fail_store(cli, r);
	if (!list.count)
		return cli_fail(cli, "there is no session");
	r = words->yes ? 0 : cli_confirm(cli, list.count, words->all ? "sessions of everybody" : "sessions");
	if (r)
		return r;
	int worst = EXIT_SUCCESS;
	for (size_t i = 0; i < list.count; i++) {
		r = close_one(cli, &list.sessions[i], words->json);
		worst = r > worst ? r : worst;
	}
	return worst;
}

static int run_close(struct cli *cli, int argc, char **argv)
{
	struct close_words words = {0};
	int result = EXIT_SUCCESS;
	if (!read_words(argc, argv, &words))
		return cli_fail_usage(cli,
				      "needs KID/NAME (see `spritegate session list`) or several, or --kid KID or --all; [--yes] [--json]");
	if (!words.names)
		return close_many(cli, &words);
	for (int i = 0; i < words.names; i++) {
		int r = close_named(cli, argv[i], words.json);
		result = r ? r : result;
	}
	return result;
}

int cli_session(struct cli *cli, int argc, char **argv)
{
	static const char usage[] =
		"usage: spritegate session list [--json]                named sessions that are kept, and until when\n"
		"       spritegate session close KID/NAME… [--json]     ends them; what runs in one is canceled, its Sprite destroyed\n"
		"       spritegate session close --kid KID | --all [--yes] [--json]\n"
		"Exit status 1: one that was named is not there.\n";
	static const struct cli_verb verbs[] = {{"list", run_list}, {"close", run_close}};
	return cli_run_verb(cli, argc, argv, usage, verbs, ARRAY_LEN(verbs));
}
