#include "policy/cli_common.h"

#include "policy/limits.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#define GRACE_USUAL_MS (24 * 3600 * LIMITS_SECOND_MS)
#define GRACE_MAX_MS   (30 * LIMITS_DAY_MS)
#define JSON_MAX       32768

int cli_fail(const struct cli *cli, const char *reason)
{
	fprintf(cli->options->err, "spritegate %s%s%s: %s\n", cli->noun, cli->verb[0] ? " " : "", cli->verb, reason);
	return EXIT_FAILURE;
}

int cli_fail_usage(const struct cli *cli, const char *reason)
{
	(void)cli_fail(cli, reason);
	return CLI_EXIT_USAGE;
}

int cli_run_verb(struct cli *cli, int argc, char **argv, const char *usage, const struct cli_verb *verbs, size_t count)
{
	if (argc && (strcmp(argv[argc - 1], "--help") == 0 || strcmp(argv[0], "help") == 0)) {
		fputs(usage, cli->options->out);
		return EXIT_SUCCESS;
	}
	for (size_t i = 0; i < count; i++)
		if (strcmp(cli->verb, verbs[i].name) == 0)
			return verbs[i].run(cli, argc - 1, argv + 1);
	fputs(usage, cli->options->err);
	return CLI_EXIT_USAGE;
}

int cli_fail_store(const struct cli *cli, int result)
{
	char reason[260];
	if (result == STORE_E_MISSING && strcmp(cli->noun, "token") == 0)
		return cli_fail(cli, "there is no such token");
	if (result == STORE_E_MISSING)
		return cli_fail(cli, "there is no such policy");
	snprintf(reason, sizeof reason, "%s%s", result == STORE_E_BROKEN ? "" : "Redis: ", store_reason(cli->store));
	return cli_fail(cli, reason);
}

int cli_rules_of(struct cli *cli, const struct record *own, struct record *rules)
{
	*rules = *own;
	if (!own->pol[0])
		return 0;
	if (strcmp(cli->policy_name, own->pol) != 0) {
		cli->policy_result = store_load_policy(cli->store, slice_str(own->pol), 0, &cli->policy);
		memcpy(cli->policy_name, own->pol, sizeof cli->policy_name);
	}
	record_copy(rules, &cli->policy, RECORD_RULES & ~own->present);
	return cli->policy_result;
}

/* --- making and changing -------------------------------------------------------- */

/* Under the rules of `own` and its policy, could a command run? Answers the exit status, 0 = yes. */
static int check(struct cli *cli, const struct record *own, struct record *rules)
{
	char problem[RECORD_PROBLEM];
	int r = cli_rules_of(cli, own, rules);
	if (r == STORE_E_MISSING)
		return cli_fail(cli, "there is no such policy; `spritegate policy list` shows them");
	if (r)
		return cli_fail_store(cli, r);
	return record_is_usable(rules, problem) ? 0 : cli_fail_usage(cli, problem);
}

static int print_token(const struct cli *cli, const struct flags *flags, const char *token, struct slice kid, const struct record *rules,
		       const char *actor)
{
	const struct policy_cli_options *o = cli->options;
	if (flags->json) {
		fprintf(o->out, "{\"token\":\"%s\",\"kid\":\"%.*s\"}\n", token, SLICE_FMT(kid));
	} else {
		fprintf(o->out, "%s\n", token);
		fprintf(o->err, "This is the only time the token is shown. kid %.*s, actor %s, ", SLICE_FMT(kid), actor);
		cli_show_limits(o->err, rules);
	}
	return fflush(o->out) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* A token and what is stored of it; the caller wipes it. */
static int mint(const struct cli *cli, struct slice kid, char token[TOKEN_LEN + 1], struct token_parts *parts, struct record *record)
{
	const struct secret *pepper = cli->options->pepper;
	if ((kid.len ? token_mint_for(kid, token) : token_mint(token)) < 0 || token_parse(slice_of(token, TOKEN_LEN), parts) != 0 ||
	    token_mac(pepper, parts->secret, record->mac) < 0 || token_pepper_id(pepper, record->pep) < 0)
		return cli_fail(cli, "the random generator failed");
	record->present |= RECORD_BIT(RECORD_MAC) | RECORD_BIT(RECORD_PEP);
	return 0;
}

static int has_pepper(const struct cli *cli)
{
	const struct secret *pepper = cli->options->pepper;
	return pepper && pepper->len ? 0 : cli_fail(cli, "SPRITEGATE_PEPPER is not set: it must be the same as the gateway's");
}

static void set_times(struct flags *flags, uint64_t now)
{
	if (flags->expires_ms)
		flags->record.exp = now + flags->expires_ms;
	if (flags->starts_ms)
		flags->record.nbf = now + flags->starts_ms;
}

/* As the environment says, "" = it does not. Who may write into Redis may call themselves anything. */
static const char *name_user(void)
{
	const char *sudo = getenv("SUDO_USER"), *user = sudo && *sudo ? sudo : getenv("USER");
	return user ? user : "";
}

static void name_creator(struct record *record)
{
	const char *user = name_user();
	if (!record_actor_is_valid(slice_str(user)))
		return;
	snprintf(record->created_by, sizeof record->created_by, "%s", user);
	record->present |= RECORD_BIT(RECORD_CREATED_BY);
}

static int create(struct cli *cli, struct flags *flags)
{
	struct record *record = &flags->record, rules;
	char token[TOKEN_LEN + 1];
	struct token_parts parts;
	uint64_t now;
	int r = store_now(cli->store, &now);
	if (r)
		return cli_fail_store(cli, r);
	record->created = now;
	record->ver = 1;
	strcpy(record->status, "active");
	record->present |= RECORD_BIT(RECORD_CREATED) | RECORD_BIT(RECORD_VER) | RECORD_BIT(RECORD_STATUS);
	set_times(flags, now);
	name_creator(record);
	if (!record->pol[0])
		record_fill(record);
	r = check(cli, record, &rules);
	r = r ? r : mint(cli, (struct slice){0}, token, &parts, record);
	if (r)
		return r;
	r = store_create(cli->store, parts.kid, record);
	r = r ? cli_fail_store(cli, r) : print_token(cli, flags, token, parts.kid, &rules, record->actor);
	secret_wipe(token, sizeof token);
	return r;
}

static int run_create(struct cli *cli, int argc, char **argv)
{
	struct flags flags;
	if (flags_parse(FLAGS_TOKEN_CREATE, argc, argv, &flags) != 0)
		return cli_fail_usage(cli, flags.problem);
	if (flags.help) {
		fputs("usage: spritegate token create --actor NAME [flags]\n\n"
		      "Makes a token and prints it, once. What a flag says by default stands in brackets; with --policy the\n"
		      "policy's rules take the place of the defaults.\n\n",
		      cli->options->out);
		flags_help(FLAGS_TOKEN_CREATE, cli->options->out);
		return EXIT_SUCCESS;
	}
	int r = has_pepper(cli);
	return r ? r : create(cli, &flags);
}

/* The first argument; NULL, after a message, when it is none. */
static const char *take_kid(const struct cli *cli, int argc, char **argv)
{
	if (argc > 0 && token_kid_is_valid(slice_str(argv[0])))
		return argv[0];
	(void)cli_fail_usage(cli, "needs a KID: the 16 letters and digits after sgt_");
	return NULL;
}

static int set(struct cli *cli, const char *kid, struct flags *flags)
{
	struct record loaded, changed, rules;
	uint64_t now;
	int r = store_now(cli->store, &now);
	r = r ? r : store_watch(cli->store, STORE_TOKENS, slice_str(kid));
	r = r ? r : store_load(cli->store, slice_str(kid), &loaded);
	if (r)
		return cli_fail_store(cli, r);
	set_times(flags, now);
	changed = loaded;
	record_copy(&changed, &flags->record, flags->record.present);
	record_copy(&changed, &(struct record){0}, flags->removed);
	r = check(cli, &changed, &rules);
	if (r)
		return r;
	r = store_change(cli->store, slice_str(kid), &loaded, &flags->record, flags->removed, "set");
	if (r)
		return cli_fail_store(cli, r);
	if (flags->json)
		fprintf(cli->options->out, "{\"kid\":\"%s\",\"version\":%" PRIu64 "}\n", kid, loaded.ver + 1);
	else
		fprintf(cli->options->out, "%s is changed, version %" PRIu64 "; it acts on the next call\n", kid, loaded.ver + 1);
	return EXIT_SUCCESS;
}

static int run_set(struct cli *cli, int argc, char **argv)
{
	struct flags flags;
	if (argc > 0 && strcmp(argv[0], "--help") == 0) {
		fputs("usage: spritegate token set KID flags\n\nChanges what the flags say and leaves the rest as it is.\n\n",
		      cli->options->out);
		flags_help(FLAGS_TOKEN_SET, cli->options->out);
		return EXIT_SUCCESS;
	}
	const char *kid = take_kid(cli, argc, argv);
	if (!kid)
		return CLI_EXIT_USAGE;
	if (flags_parse(FLAGS_TOKEN_SET, argc - 1, argv + 1, &flags) != 0)
		return cli_fail_usage(cli, flags.problem);
	return set(cli, kid, &flags);
}

static int rotate(struct cli *cli, const char *kid, uint64_t grace_ms, bool json)
{
	struct record loaded, rules, changes = {0};
	struct flags shown = {.json = json};
	char token[TOKEN_LEN + 1];
	struct token_parts parts;
	uint64_t now, removed = 0;
	const uint64_t past = RECORD_BIT(RECORD_PMAC) | RECORD_BIT(RECORD_PMAC_UNTIL);
	int r = store_now(cli->store, &now);
	r = r ? r : store_watch(cli->store, STORE_TOKENS, slice_str(kid));
	r = r ? r : store_load(cli->store, slice_str(kid), &loaded);
	r = r ? r : cli_rules_of(cli, &loaded, &rules);
	if (r)
		return cli_fail_store(cli, r);
	if (strcmp(loaded.status, "revoked") == 0)
		return cli_fail(cli, "it is revoked, and that is for ever");
	if (grace_ms) {
		memcpy(changes.pmac, loaded.mac, sizeof changes.pmac);
		changes.pmac_until = now + grace_ms;
		changes.present |= past;
	} else {
		removed = past;
	}
	r = mint(cli, slice_str(kid), token, &parts, &changes);
	if (r)
		return r;
	r = store_change(cli->store, slice_str(kid), &loaded, &changes, removed, "rotate");
	r = r ? cli_fail_store(cli, r) : print_token(cli, &shown, token, parts.kid, &rules, loaded.actor);
	secret_wipe(token, sizeof token);
	return r;
}

static int run_rotate(struct cli *cli, int argc, char **argv)
{
	uint64_t grace = GRACE_USUAL_MS;
	bool json = false;
	const char *kid = take_kid(cli, argc, argv);
	if (!kid)
		return CLI_EXIT_USAGE;
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			json = true;
		else if (strcmp(argv[i], "--grace") != 0 || i + 1 == argc ||
			 (strcmp(argv[++i], "0") == 0 ? (grace = 0, 0)
						      : limits_duration(slice_str(argv[i]), LIMITS_SECOND_MS, GRACE_MAX_MS, &grace)) < 0)
			return cli_fail_usage(
				cli, "takes a KID, --grace TIME (how long the old secret still counts: 0, or 1s to 30d; 24h) and --json");
	}
	int r = has_pepper(cli);
	return r ? r : rotate(cli, kid, grace, json);
}

/* --- status ----------------------------------------------------------------------- */

static int change_status(struct cli *cli, const char *kid, const char *status, bool json)
{
	struct record loaded, changes = {.present = RECORD_BIT(RECORD_STATUS)};
	int r = store_watch(cli->store, STORE_TOKENS, slice_str(kid));
	r = r ? r : store_load(cli->store, slice_str(kid), &loaded);
	if (r && !(r == STORE_E_BROKEN && strcmp(status, "active") != 0)) /* what cannot be read can still be stopped */
		return cli_fail_store(cli, r);
	if (strcmp(loaded.status, "revoked") == 0 && strcmp(status, "revoked") != 0)
		return cli_fail(cli, "it is revoked, and that is for ever");
	snprintf(changes.status, sizeof changes.status, "%s", status);
	r = store_change(cli->store, slice_str(kid), &loaded, &changes, 0, cli->verb);
	if (r)
		return cli_fail_store(cli, r);
	fprintf(cli->options->out, json ? "{\"kid\":\"%s\",\"status\":\"%s\"}\n" : "%s is %s\n", kid, status);
	return EXIT_SUCCESS;
}

int cli_confirm(const struct cli *cli, size_t count, const char *what)
{
	const struct policy_cli_options *o = cli->options;
	char answer[16] = "";
	if (!isatty(fileno(o->in)))
		return cli_fail_usage(cli, "that is for more than was named: without a terminal to ask at it needs --yes");
	fprintf(o->err, "%s %zu %s? Type yes: ", cli->verb, count, what);
	fflush(o->err);
	if (fgets(answer, sizeof answer, o->in) && strcmp(answer, "yes\n") == 0)
		return 0;
	return cli_fail(cli, "nothing was changed");
}

struct status_words {
	const char *status, *actor;
	bool json, yes, kill;
	int kids; /* moved to the front of argv */
};

/* Those of one actor that have another status and are not revoked, with `kill` all: what runs may be of a token that was revoked before.
 * *kids is the caller's. */
static int find_of_actor(struct cli *cli, const struct status_words *words, store_name **kids, size_t *count)
{
	size_t all = 0, kept = 0;
	int r = store_list(cli->store, STORE_TOKENS, kids, &all);
	for (size_t i = 0; r == 0 && i < all; i++) {
		struct record record;
		r = store_load(cli->store, slice_str((*kids)[i]), &record);
		bool changes = r != STORE_E_MISSING && strcmp(record.status, words->status) != 0 && strcmp(record.status, "revoked") != 0;
		bool wanted = r != STORE_E_MISSING && strcmp(record.actor, words->actor) == 0 && (changes || words->kill);
		if (r == STORE_E_MISSING || r == STORE_E_BROKEN)
			r = 0;
		if (r == 0 && wanted)
			memmove((*kids)[kept++], (*kids)[i], sizeof **kids);
	}
	*count = kept;
	return r;
}

/* The worst exit status. A token that cannot be changed keeps none of the others from it; `kids` are reordered. */
static int change_each(struct cli *cli, char **kids, size_t count, const struct status_words *words)
{
	int worst = EXIT_SUCCESS;
	size_t changed = 0;
	for (size_t i = 0; i < count; i++) {
		int r = change_status(cli, kids[i], words->status, words->json);
		worst = r > worst ? r : worst;
		if (r == 0)
			kids[changed++] = kids[i];
	}
	int r = words->kill ? cli_kill_of_kids(cli, kids, changed, words->json) : EXIT_SUCCESS;
	return r > worst ? r : worst;
}

static int change_status_of_actor(struct cli *cli, const struct status_words *words)
{
	CLEANUP(free_ptr) store_name *kids = NULL;
	CLEANUP(free_ptr) char **names = NULL;
	char what[RECORD_TEXT_MAX + 12];
	size_t count = 0;
	int r = find_of_actor(cli, words, &kids, &count);
	if (r)
		return cli_fail_store(cli, r);
	if (!count)
		return cli_fail(cli, "the actor has no token that this would change");
	snprintf(what, sizeof what, "tokens of %.*s", RECORD_TEXT_MAX, words->actor);
	names = calloc(count, sizeof *names);
	r = !names ? cli_fail(cli, "out of memory") : words->yes ? 0 : cli_confirm(cli, count, what);
	if (r)
		return r;
	for (size_t i = 0; i < count; i++)
		names[i] = kids[i];
	return change_each(cli, names, count, words);
}

static bool read_status_words(int argc, char **argv, struct status_words *words)
{
	for (int i = 0; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			words->json = true;
		else if (strcmp(argv[i], "--yes") == 0)
			words->yes = true;
		else if (strcmp(argv[i], "--kill") == 0 && strcmp(words->status, "revoked") == 0)
			words->kill = true;
		else if (strcmp(argv[i], "--actor") == 0 && i + 1 < argc && !words->actor)
			words->actor = argv[++i];
		else if (token_kid_is_valid(slice_str(argv[i])))
			argv[words->kids++] = argv[i];
		else
			return false;
	}
	return !words->actor != !words->kids;
}

static int run_status(struct cli *cli, int argc, char **argv, const char *status)
{
	struct status_words words = {.status = status};
	if (!read_status_words(argc, argv, &words))
		return cli_fail_usage(
			cli,
			strcmp(status, "revoked") == 0
				? "needs a KID (the 16 letters and digits after sgt_) or several, or --actor NAME [--yes]; --kill; --json"
				: "needs a KID (the 16 letters and digits after sgt_) or several, or --actor NAME [--yes]; --json");
	if (words.actor)
		return change_status_of_actor(cli, &words);
	return change_each(cli, argv, (size_t)words.kids, &words);
}

/* --- looking ---------------------------------------------------------------------- */

/* 0, or a result of the store that ends the command. `broken` gets the reason when the gateways refuse the token. */
static int look_at(struct cli *cli, const char *kid, struct record *own, struct record *rules, struct cli_token *token, char broken[200])
{
	*token = (struct cli_token){.kid = kid, .own = own, .rules = rules};
	int r = store_load(cli->store, slice_str(kid), own);
	if (r && r != STORE_E_BROKEN)
		return r;
	if (r == STORE_E_BROKEN)
		snprintf(broken, 200, "%s", store_reason(cli->store));
	int p = cli_rules_of(cli, own, rules);
	if (p == STORE_E_REDIS)
		return p;
	if (p)
		snprintf(broken, 200,
			 p == STORE_E_MISSING ? "its policy is not there" : "its policy has a field that is not known or cannot be read");
	token->broken = r || p ? broken : NULL;
	token->policy_version = own->pol[0] ? cli->policy.ver : 0;
	return 0;
}

struct list_words {
	const char *actor;
	bool json, usage;
};

/* `usage` may be NULL. */
static int print_one(const struct cli *cli, const struct cli_token *token, const struct store_usage *usage, bool json, const char *before)
{
	struct buf text = BUF_MAX(JSON_MAX);
	if (!json) {
		if (usage)
			cli_show_usage(cli->options->out, token, usage);
		else
			cli_show_line(cli->options->out, token);
		return 0;
	}
	int r = cli_show_json(&text, token, usage);
	if (r == 0)
		fprintf(cli->options->out, "%s%.*s", before, SLICE_FMT(buf_peek(&text)));
	buf_deinit(&text);
	return r;
}

static int list(struct cli *cli, const struct list_words *words)
{
	CLEANUP(free_ptr) store_name *kids = NULL;
	size_t count = 0;
	int r = store_list(cli->store, STORE_TOKENS, &kids, &count);
	if (r)
		return cli_fail_store(cli, r);
	if (!words->json && words->usage)
		cli_show_usage_heading(cli->options->out);
	else if (!words->json)
		cli_show_heading(cli->options->out);
	bool first = true;
	for (size_t i = 0; i < count; i++) {
		struct record own, rules;
		struct cli_token token;
		struct store_usage usage;
		char broken[200];
		r = look_at(cli, kids[i], &own, &rules, &token, broken);
		if (r == STORE_E_MISSING || (r == 0 && words->actor && strcmp(own.actor, words->actor) != 0))
			continue; /* ended meanwhile, or somebody else's */
		if (r == 0 && words->usage)
			r = store_usage(cli->store, slice_str(kids[i]), &usage);
		if (r)
			return cli_fail_store(cli, r);
		if (print_one(cli, &token, words->usage ? &usage : NULL, words->json, first ? "[" : ",\n ") < 0)
			return cli_fail(cli, "out of memory");
		first = false;
	}
	if (words->json)
		fputs(first ? "[]\n" : "]\n", cli->options->out);
	return EXIT_SUCCESS;
}

static int run_list(struct cli *cli, int argc, char **argv)
{
	struct list_words words = {0};
	for (int i = 0; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			words.json = true;
		else if (strcmp(argv[i], "--usage") == 0)
			words.usage = true;
		else if (strcmp(argv[i], "--actor") == 0 && i + 1 < argc && !words.actor)
			words.actor = argv[++i];
		else
			return cli_fail_usage(cli, "takes --actor NAME, --usage and --json only");
	}
	return list(cli, &words);
}

static int show(struct cli *cli, const char *kid, bool json)
{
	struct record own, rules;
	struct cli_token token;
	struct store_usage usage;
	struct buf text = BUF_MAX(JSON_MAX);
	char broken[200];
	int r = look_at(cli, kid, &own, &rules, &token, broken);
	r = r ? r : store_usage(cli->store, slice_str(kid), &usage);
	if (r)
		return cli_fail_store(cli, r);
	if (!json) {
		cli_show_details(cli->options->out, &token, &usage);
		return EXIT_SUCCESS;
	}
	r = cli_show_json(&text, &token, &usage);
	if (r == 0)
		fprintf(cli->options->out, "%.*s\n", SLICE_FMT(buf_peek(&text)));
	buf_deinit(&text);
	return r ? cli_fail(cli, "out of memory") : EXIT_SUCCESS;
}

static int run_show(struct cli *cli, int argc, char **argv)
{
	bool json = argc > 0 && strcmp(argv[0], "--json") == 0;
	const char *kid = take_kid(cli, argc - json, argv + json);
	if (!kid)
		return CLI_EXIT_USAGE;
	if (argc - json == 2 && !json && strcmp(argv[1], "--json") == 0)
		json = true;
	else if (argc - json != 1)
		return cli_fail_usage(cli, "takes one KID and --json");
	return show(cli, kid, json);
}

/* --- the words ---------------------------------------------------------------------- */

static int run_revoke(struct cli *cli, int argc, char **argv)
{
	return run_status(cli, argc, argv, "revoked");
}

static int run_suspend(struct cli *cli, int argc, char **argv)
{
	return run_status(cli, argc, argv, "suspended");
}

static int run_resume(struct cli *cli, int argc, char **argv)
{
	return run_status(cli, argc, argv, "active");
}

static void print_token_usage(FILE *out)
{
	fputs("usage: spritegate token create --actor NAME [flags]      make a token and print it, once\n"
	      "       spritegate token list [--actor NAME] [--usage] [--json]   all tokens; with --usage what they have used today\n"
	      "       spritegate token show KID [--json]               one token, its limits and its use today\n"
	      "       spritegate token set KID flags                   change its limits, from the next call on\n"
	      "       spritegate token rotate KID [--grace TIME]       another secret; the old one counts for TIME (24h) more\n"
	      "       spritegate token suspend|resume|revoke KID…      it is refused from the next call on; revoked is for ever\n"
	      "       spritegate token suspend|resume|revoke --actor NAME [--yes]   all tokens of an actor\n"
	      "       spritegate token export [--actor NAME]           their records, a JSON object a line, without secrets\n"
	      "       spritegate token import FILE|- [--json]          takes them in, under the same pepper; what is there already stays\n"
	      "       spritegate token revoke --kill …                 what runs is ended as well, within a second\n"
	      "KID is the part after sgt_; `spritegate token create --help` lists the flags. All take --json but export, which is JSON anyway.\n",
	      out);
}

static int cli_token(struct cli *cli, int argc, char **argv)
{
	static const struct {
		const char *verb;
		int (*run)(struct cli *cli, int argc, char **argv);
	} verbs[] = {
		{"create", run_create},       {"list", run_list},           {"show", run_show},     {"set", run_set},
		{"rotate", run_rotate},       {"suspend", run_suspend},     {"resume", run_resume}, {"revoke", run_revoke},
		{"export", cli_token_export}, {"import", cli_token_import},
	};
	bool help = argc > 1 && strcmp(argv[argc - 1], "--help") == 0;
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
		if (strcmp(cli->verb, verbs[i].verb) != 0)
			continue;
		if (!help || verbs[i].run == run_create || verbs[i].run == run_set)
			return verbs[i].run(cli, argc - 1, argv + 1);
		print_token_usage(cli->options->out);
		return EXIT_SUCCESS;
	}
	if (strcmp(cli->verb, "--help") == 0 || strcmp(cli->verb, "help") == 0) {
		print_token_usage(cli->options->out);
		return EXIT_SUCCESS;
	}
	if (!argc) {
		print_token_usage(cli->options->err);
		return CLI_EXIT_USAGE;
	}
	cli->verb = "";
	return cli_fail_usage(
		cli, "the commands are create, list, show, set, rotate, suspend, resume, revoke, export and import; --help explains them");
}

/* "" = a name that could not stand in the audit. */
static void name_operator(char by[RECORD_TEXT_MAX + 1])
{
	char host[HOST_NAME_MAX + 1] = "", text[RECORD_TEXT_MAX + 2], uid[24];
	const char *user = name_user();
	snprintf(uid, sizeof uid, "uid%u", (unsigned)getuid());
	(void)gethostname(host, sizeof host - 1);
	snprintf(text, sizeof text, "%s@%s", *user ? user : uid, host);
	snprintf(by, RECORD_TEXT_MAX + 1, "%s", record_actor_is_valid(slice_str(text)) ? text : "");
}

int policy_cli(const char *noun, int argc, char **argv, const struct policy_cli_options *options)
{
	struct cli cli = {.options = options, .noun = noun, .verb = argc > 0 ? argv[0] : ""};
	char by[RECORD_TEXT_MAX + 1];
	name_operator(by);
	cli.store = store_open(slice_str(options->redis_url), by);
	if (!cli.store)
		return cli_fail(&cli, "out of memory");
	int r;
	if (strcmp(noun, "token") == 0)
		r = cli_token(&cli, argc, argv);
	else if (strcmp(noun, "policy") == 0)
		r = cli_policy(&cli, argc, argv);
	else if (strcmp(noun, "lease") == 0)
		r = cli_lease(&cli, argc, argv);
	else if (strcmp(noun, "session") == 0)
		r = cli_session(&cli, argc, argv);
	else
		r = cli_pool(&cli, argc, argv);
	store_close(cli.store);
	return r;
}
