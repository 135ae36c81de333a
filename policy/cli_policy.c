#include "policy/cli_common.h"

#include "gateway/base/json_text.h"
#include "policy/limits.h"

#include <inttypes.h>
#include <stdlib.h>

#define JSON_MAX 32768

/* --- policies ---------------------------------------------------------------------- */

static const char *take_name(const struct cli *cli, int argc, char **argv)
{
	if (argc > 0 && record_policy_name_is_valid(slice_str(argv[0])))
		return argv[0];
	(void)cli_fail_usage(cli, "needs the NAME of a policy: 1 to 64 of letters, digits, dot, dash and underscore");
	return NULL;
}

static int put(struct cli *cli, const char *name, struct flags *flags)
{
	struct record before, policy;
	char problem[RECORD_PROBLEM];
	uint64_t now;
	int r = store_now(cli->store, &now);
	r = r ? r : store_watch(cli->store, STORE_POLICIES, slice_str(name));
	r = r ? r : store_load_policy(cli->store, slice_str(name), 0, &before);
	if (r && r != STORE_E_MISSING)
		return cli_fail_store(cli, r);
	policy = before;
	record_copy(&policy, &flags->record, flags->record.present);
	record_fill(&policy);
	policy.ver = before.ver + 1;
	policy.created = now;
	policy.present |= RECORD_BIT(RECORD_VER) | RECORD_BIT(RECORD_CREATED);
	if (!record_is_usable(&policy, problem))
		return cli_fail_usage(cli, problem);
	r = store_put_policy(cli->store, slice_str(name), &policy);
	if (r)
		return cli_fail_store(cli, r);
	if (flags->json) {
		fprintf(cli->options->out, "{\"policy\":\"%s\",\"version\":%" PRIu64 "}\n", name, policy.ver);
		return EXIT_SUCCESS;
	}
	fprintf(cli->options->out, "%s is at version %" PRIu64 "; it acts on the next call of every token that follows it\n", name,
		policy.ver);
	(void)cli_show_diff(cli->options->out, &before, &policy);
	return EXIT_SUCCESS;
}

static int run_set(struct cli *cli, int argc, char **argv)
{
	struct flags flags;
	if (argc > 0 && strcmp(argv[argc - 1], "--help") == 0) {
		fputs("usage: spritegate policy set NAME flags\n\nMakes a policy, or changes what the flags say and leaves the rest as it is.\n\n",
		      cli->options->out);
		flags_help(FLAGS_POLICY_SET, cli->options->out);
		return EXIT_SUCCESS;
	}
	const char *name = take_name(cli, argc, argv);
	if (!name)
		return CLI_EXIT_USAGE;
	if (flags_parse(FLAGS_POLICY_SET, argc - 1, argv + 1, &flags) != 0)
		return cli_fail_usage(cli, flags.problem);
	return put(cli, name, &flags);
}

static int print_policy(const struct cli *cli, const char *name, const struct record *policy, bool json)
{
	FILE *out = cli->options->out;
	struct buf text = BUF_MAX(JSON_MAX);
	if (!json) {
		fprintf(out, "%-12s %s\n%-12s %" PRIu64 "\n", "policy", name, "version", policy->ver);
		cli_show_rules(out, policy);
		return EXIT_SUCCESS;
	}
	int r = cli_show_policy_json(&text, name, policy);
	if (r == 0)
		fprintf(out, "%.*s\n", SLICE_FMT(buf_peek(&text)));
	buf_deinit(&text);
	return r ? cli_fail(cli, "out of memory") : EXIT_SUCCESS;
}

/* NAME, up to two versions, --json; the exit status when they are wrong. */
static int read_words(struct cli *cli, int argc, char **argv, size_t max, uint64_t versions[2], bool *json)
{
	size_t count = 0;
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			*json = true;
		else if (count == max || limits_count(slice_str(argv[i]), 1, UINT32_MAX, &versions[count++]) < 0)
			return cli_fail_usage(cli, "takes NAME and numbers of versions; --help explains them");
	}
	return 0;
}

static int run_show(struct cli *cli, int argc, char **argv)
{
	uint64_t versions[2] = {0};
	bool json = false;
	struct record policy;
	const char *name = take_name(cli, argc, argv);
	if (!name)
		return CLI_EXIT_USAGE;
	int r = read_words(cli, argc, argv, 1, versions, &json);
	if (r)
		return r;
	r = store_load_policy(cli->store, slice_str(name), versions[0], &policy);
	return r ? cli_fail_store(cli, r) : print_policy(cli, name, &policy, json);
}

static int print_diff_json(const struct cli *cli, const char *name, uint64_t from, const struct record *before, const struct record *after)
{
	struct buf text = BUF_MAX(JSON_MAX);
	int r = cli_show_diff_json(&text, before, after);
	if (r == 0)
		fprintf(cli->options->out, "{\"policy\":\"%s\",\"from\":%" PRIu64 ",\"to\":%" PRIu64 ",\"changes\":%.*s}\n", name, from,
			after->ver, SLICE_FMT(buf_peek(&text)));
	buf_deinit(&text);
	return r ? cli_fail(cli, "out of memory") : EXIT_SUCCESS;
}

/* No version: the one before the present against the present. One: that against the present. */
static int run_diff(struct cli *cli, int argc, char **argv)
{
	uint64_t versions[2] = {0};
	bool json = false;
	struct record before = {0}, after;
	const char *name = take_name(cli, argc, argv);
	if (!name)
		return CLI_EXIT_USAGE;
	int r = read_words(cli, argc, argv, 2, versions, &json);
	if (r)
		return r;
	r = store_load_policy(cli->store, slice_str(name), versions[1], &after);
	uint64_t from = versions[0] ? versions[0] : after.ver - 1;
	if (r == 0 && from)
		r = store_load_policy(cli->store, slice_str(name), from, &before);
	if (r)
		return cli_fail_store(cli, r);
	if (json)
		return print_diff_json(cli, name, from, &before, &after);
	fprintf(cli->options->out, "%s, version %" PRIu64 " to %" PRIu64 "\n", name, from, after.ver);
	(void)cli_show_diff(cli->options->out, &before, &after);
	return EXIT_SUCCESS;
}

static int run_list(struct cli *cli, int argc, char **argv)
{
	CLEANUP(free_ptr) store_name *names = NULL;
	size_t count = 0;
	bool json = argc == 1 && strcmp(argv[0], "--json") == 0;
	if (argc > json)
		return cli_fail_usage(cli, "takes --json only");
	int r = store_list(cli->store, STORE_POLICIES, &names, &count);
	for (size_t i = 0; r == 0 && i < count; i++) {
		struct record policy;
		r = store_load_policy(cli->store, slice_str(names[i]), 0, &policy);
		if (r == 0 && json)
			r = print_policy(cli, names[i], &policy, true);
		else if (r == 0) {
			fprintf(cli->options->out, "%-20s version %-4" PRIu64 " ", names[i], policy.ver);
			cli_show_limits(cli->options->out, &policy);
		}
	}
	return r ? cli_fail_store(cli, r) : EXIT_SUCCESS;
}

struct check {
	const char *only; /* the one policy; NULL = all */
	bool json;
	size_t followers, bad;
	int failed; /* to write JSON: out of memory */
};

static void tell_bad(const struct cli *cli, struct check *check, const char *kid, const struct record *own, const char *problem)
{
	FILE *out = cli->options->out;
	check->bad++;
	if (!check->json) {
		fprintf(out, "%s  %s  %s: %s\n", kid, own->actor, own->pol, problem);
		return;
	}
	struct buf text = BUF_MAX(JSON_MAX);
	int r = buf_printf(&text, "{\"kid\":\"%s\",\"actor\":", kid);
	r = r ? r : json_text_string(&text, slice_str(own->actor));
	r = r ? r : buf_append(&text, SLICE(",\"policy\":"));
	r = r ? r : json_text_string(&text, slice_str(own->pol));
	r = r ? r : buf_append(&text, SLICE(",\"problem\":"));
	r = r ? r : json_text_string(&text, slice_str(problem));
	fprintf(out, "%s%.*s}", check->bad > 1 ? ",\n  " : "", SLICE_FMT(buf_peek(&text)));
	buf_deinit(&text);
	check->failed = r ? r : check->failed;
}

/* Is there something about this token that keeps every command of it from running? */
static int check_token(struct cli *cli, struct check *check, const char *kid)
{
	const char *only = check->only;
	struct record own, rules;
	char problem[RECORD_PROBLEM];
	int r = store_load(cli->store, slice_str(kid), &own);
	if (r == STORE_E_MISSING || (r != STORE_E_REDIS && (!own.pol[0] || (only && strcmp(own.pol, only) != 0))))
		return 0;
	if (r == STORE_E_REDIS)
		return r;
	check->followers++;
	int p = cli_rules_of(cli, &own, &rules);
	if (p == STORE_E_REDIS)
		return p;
	if (r == STORE_E_BROKEN || p == STORE_E_BROKEN)
		snprintf(problem, sizeof problem, "a field is not known or cannot be read");
	else if (p == STORE_E_MISSING)
		snprintf(problem, sizeof problem, "there is no policy %s", own.pol);
	else if (record_is_usable(&rules, problem))
		return 0;
	tell_bad(cli, check, kid, &own, problem);
	return 0;
}

/* All tokens that follow a policy, or this one. */
static int run_check(struct cli *cli, int argc, char **argv)
{
	CLEANUP(free_ptr) store_name *kids = NULL;
	size_t count = 0;
	struct check check = {.json = argc && strcmp(argv[argc - 1], "--json") == 0};
	struct record policy;
	int names = argc - check.json;
	if (names > 1)
		return cli_fail_usage(cli, "takes one NAME, or nothing, and --json");
	check.only = names ? take_name(cli, names, argv) : NULL;
	if (names && !check.only)
		return CLI_EXIT_USAGE;
	int r = check.only ? store_load_policy(cli->store, slice_str(check.only), 0, &policy) : 0;
	r = r ? r : store_list(cli->store, STORE_TOKENS, &kids, &count);
	if (r == 0 && check.json)
		fputs("{\"cannot_run\":[", cli->options->out);
	for (size_t i = 0; r == 0 && i < count; i++)
		r = check_token(cli, &check, kids[i]);
	if (r || check.failed)
		return r ? cli_fail_store(cli, r) : cli_fail(cli, "out of memory");
	if (check.json)
		fprintf(cli->options->out, "],\"followers\":%zu}\n", check.followers);
	else
		fprintf(cli->options->out, "%zu tokens follow %s, %zu of them cannot run commands\n", check.followers,
			check.only ? check.only : "a policy", check.bad);
	return check.bad ? EXIT_FAILURE : EXIT_SUCCESS;
}

static void print_policy_usage(FILE *out)
{
	fputs("usage: spritegate policy set NAME flags           make or change the rules that tokens with --policy NAME inherit\n"
	      "       spritegate policy list [--json]            all policies\n"
	      "       spritegate policy show NAME [VERSION] [--json]\n"
	      "       spritegate policy diff NAME [FROM [TO]] [--json]    what changed, by default with the last version\n"
	      "       spritegate policy check [NAME] [--json]    exit 1 when a token that follows a policy cannot run commands\n"
	      "`spritegate policy set --help` lists the flags.\n",
	      out);
}

int cli_policy(struct cli *cli, int argc, char **argv)
{
	static const struct {
		const char *verb;
		int (*run)(struct cli *cli, int argc, char **argv);
	} verbs[] = {{"set", run_set}, {"list", run_list}, {"show", run_show}, {"diff", run_diff}, {"check", run_check}};
	bool help = argc > 1 && strcmp(argv[argc - 1], "--help") == 0;
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (strcmp(cli->verb, verbs[i].verb) == 0 && (!help || verbs[i].run == run_set))
			return verbs[i].run(cli, argc - 1, argv + 1);
	help = help || strcmp(cli->verb, "--help") == 0 || strcmp(cli->verb, "help") == 0;
	if (help || !argc) {
		print_policy_usage(help ? cli->options->out : cli->options->err);
		return help ? EXIT_SUCCESS : CLI_EXIT_USAGE;
	}
	cli->verb = "";
	return cli_fail_usage(cli, "the commands are set, list, show, diff and check; --help explains them");
}
