#include "policy/cli.h"

#include "gateway/base/clock.h"
#include "gateway/base/json_text.h"
#include "policy/create_flags.h"
#include "policy/limits.h"
#include "policy/store.h"

#include <inttypes.h>
#include <stdlib.h>

#define EXIT_USAGE 2

static void close_store(struct store **store)
{
	store_close(*store);
}

static int complain(const struct policy_cli_options *options, const char *what, const char *reason)
{
	fprintf(options->err, "spritegate token%s%s: %s\n", what[0] ? " " : "", what, reason);
	return EXIT_FAILURE;
}

static int complain_usage(const struct policy_cli_options *options, const char *what, const char *reason)
{
	complain(options, what, reason);
	return EXIT_USAGE;
}

static int complain_store(const struct policy_cli_options *options, const char *what, const struct store *store, int result)
{
	char reason[260];
	if (result == STORE_E_MISSING)
		return complain(options, what, "there is no such token");
	snprintf(reason, sizeof reason, "Redis: %s", store ? store_reason(store) : "out of memory");
	return complain(options, what, reason);
}

/* --- create ----------------------------------------------------------------- */

static void print_limits(FILE *out, const struct record *record)
{
	char window[LIMITS_TEXT_LEN + 1], run[LIMITS_TEXT_LEN + 1], budget[LIMITS_TEXT_LEN + 1];
	limits_write_duration(record->rate_per_ms, window);
	limits_write_duration(record->max_ms, run);
	limits_write_duration(record->bud_ms, budget);
	fprintf(out, "rate %" PRIu64 "/%s burst %" PRIu64 ", %" PRIu64 " at once, %s a run, budget %s%s\n", record->rate_n, window,
		record->burst, record->conc, run, record->bud_ms ? budget : "none", record->bud_ms ? "/day" : "");
}

static int show_token(const struct policy_cli_options *options, const struct create_flags *flags, const char *token,
		      const struct token_parts *parts)
{
	if (flags->json) {
		fprintf(options->out, "{\"token\":\"%s\",\"kid\":\"%.*s\"}\n", token, SLICE_FMT(parts->kid));
	} else {
		fprintf(options->out, "%s\n", token);
		fprintf(options->err, "This is the only time the token is shown. kid %.*s, actor %s, ", SLICE_FMT(parts->kid),
			flags->record.actor);
		print_limits(options->err, &flags->record);
	}
	return fflush(options->out) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int create(const struct policy_cli_options *options, struct create_flags *flags)
{
	CLEANUP(close_store) struct store *store = store_open(slice_str(options->redis_url));
	struct record *record = &flags->record;
	char token[TOKEN_LEN + 1];
	struct token_parts parts;
	uint64_t now;
	int r = store ? store_now(store, &now) : STORE_E_REDIS;
	if (r)
		return complain_store(options, "create", store, r);
	record->created = now;
	record->exp = flags->expires_ms ? now + flags->expires_ms : 0;
	if (token_mint(token) < 0 || token_parse(slice_of(token, TOKEN_LEN), &parts) != 0 ||
	    token_mac(options->pepper, parts.secret, record->mac) < 0 || token_pepper_id(options->pepper, record->pep) < 0)
		return complain(options, "create", "the random generator failed");
	r = store_create(store, parts.kid, record);
	r = r ? complain_store(options, "create", store, r) : show_token(options, flags, token, &parts);
	secret_wipe(token, sizeof token);
	return r;
}

static int run_create(int argc, char **argv, const struct policy_cli_options *options)
{
	struct create_flags flags;
	if (create_flags_parse(argc, argv, &flags) != 0)
		return complain_usage(options, "create", flags.problem);
	if (flags.help) {
		fputs("usage: spritegate token create --actor NAME [flags]\n\n"
		      "Makes a token and prints it, once. What a flag says by default stands in brackets.\n\n",
		      options->out);
		create_flags_help(options->out);
		return EXIT_SUCCESS;
	}
	if (!options->pepper || !options->pepper->len)
		return complain(options, "create", "SPRITEGATE_PEPPER is not set: it must be the same as the gateway's");
	return create(options, &flags);
}

/* --- list and show ----------------------------------------------------------- */

static int add_number(struct buf *json, const char *name, uint64_t value)
{
	return value ? buf_printf(json, ",\"%s\":%" PRIu64, name, value) : 0;
}

static int add_text(struct buf *json, const char *name, const char *value)
{
	int r = value[0] ? buf_printf(json, ",\"%s\":", name) : 0;
	return r || !value[0] ? r : json_text_string(json, slice_str(value));
}

static int add_time(struct buf *json, const char *name, uint64_t ms)
{
	char text[25] = "";
	if (ms)
		clock_format(ms, text);
	return add_text(json, name, text);
}

/* Limits that do not exist are left out. */
static int add_record(struct buf *json, const char *kid, const struct record *r)
{
	const struct {
		const char *name;
		uint64_t value;
	} numbers[] = {
		{"rate", r->rate_n},          {"rate_per_ms", r->rate_per_ms},         {"burst", r->burst},
		{"actor_rate", r->arate_n},   {"actor_rate_per_ms", r->arate_per_ms},  {"actor_burst", r->aburst},
		{"concurrency", r->conc},     {"actor_concurrency", r->aconc},         {"budget_ms_per_day", r->bud_ms},
		{"max_run_ms", r->max_ms},    {"max_output_bytes", r->max_out},        {"max_input_bytes", r->max_in},
		{"version", r->ver},
	};
	int e = buf_printf(json, "{\"kid\":\"%s\"", kid);
	e = e ? e : add_text(json, "actor", r->actor);
	e = e ? e : add_text(json, "name", r->name);
	e = e ? e : add_text(json, "status", r->status);
	e = e ? e : add_text(json, "scopes", r->scopes);
	e = e ? e : add_text(json, "commands", r->cmds);
	e = e ? e : add_time(json, "created", r->created);
	e = e ? e : add_time(json, "not_before", r->nbf);
	e = e ? e : add_time(json, "expires", r->exp);
	for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
		e = e ? e : add_number(json, numbers[i].name, numbers[i].value);
	return e;
}

static void print_line(FILE *out, const char *kid, const struct record *record)
{
	char window[LIMITS_TEXT_LEN + 1], expires[25] = "never";
	limits_write_duration(record->rate_per_ms, window);
	if (record->exp)
		clock_format(record->exp, expires);
	fprintf(out, "%s  %-9s  %-20s  %" PRIu64 "/%s  conc %" PRIu64 "  expires %s  %s\n", kid, record->status, record->actor,
		record->rate_n, window, record->conc, expires, record->name);
}

static int print_one(const struct policy_cli_options *options, const char *kid, const struct record *record, bool json,
		     const char *before)
{
	struct buf text = BUF_MAX(16384);
	if (!json) {
		print_line(options->out, kid, record);
		return 0;
	}
	int r = add_record(&text, kid, record);
	if (r == 0)
		fprintf(options->out, "%s%.*s}", before, SLICE_FMT(buf_peek(&text)));
	buf_deinit(&text);
	return r;
}

static int list(const struct policy_cli_options *options, bool json)
{
	CLEANUP(close_store) struct store *store = store_open(slice_str(options->redis_url));
	CLEANUP(free_ptr) store_kid *kids = NULL;
	size_t count = 0;
	int r = store ? store_list(store, &kids, &count) : STORE_E_REDIS;
	if (r)
		return complain_store(options, "list", store, r);
	bool first = true;
	for (size_t i = 0; i < count; i++) {
		struct record record;
		r = store_load(store, slice_str(kids[i]), &record);
		if (r == STORE_E_MISSING)
			continue; /* ended meanwhile */
		if (r)
			return complain_store(options, "list", store, r);
		if (print_one(options, kids[i], &record, json, first ? "[" : ",\n ") < 0)
			return complain(options, "list", "out of memory");
		first = false;
	}
	if (json)
		fputs(first ? "[]\n" : "]\n", options->out);
	return EXIT_SUCCESS;
}

static void print_details(FILE *out, const char *kid, const struct record *record, const struct store_usage *usage)
{
	char used[LIMITS_TEXT_LEN + 1], held[LIMITS_TEXT_LEN + 1];
	limits_write_duration(usage->used_ms, used);
	limits_write_duration(usage->held_ms, held);
	print_line(out, kid, record);
	print_limits(out, record);
	if (record->cmds[0])
		fprintf(out, "only these programs: %s\n", record->cmds);
	fprintf(out, "now: %" PRIu64 " running; today: %" PRIu64 " commands, %s used, %s held, %" PRIu64 " bytes of output\n",
		usage->running, usage->requests, used, held, usage->out_bytes);
}

static int print_details_json(FILE *out, const char *kid, const struct record *record, const struct store_usage *usage)
{
	struct buf text = BUF_MAX(16384);
	int r = add_record(&text, kid, record);
	if (r == 0)
		fprintf(out,
			"%.*s,\"usage\":{\"running\":%" PRIu64 ",\"used_ms\":%" PRIu64 ",\"held_ms\":%" PRIu64
			",\"output_bytes\":%" PRIu64 ",\"commands\":%" PRIu64 "}}\n",
			SLICE_FMT(buf_peek(&text)), usage->running, usage->used_ms, usage->held_ms, usage->out_bytes, usage->requests);
	buf_deinit(&text);
	return r;
}

static int show(const struct policy_cli_options *options, const char *kid, bool json)
{
	CLEANUP(close_store) struct store *store = store_open(slice_str(options->redis_url));
	struct record record;
	struct store_usage usage;
	int r = store ? store_load(store, slice_str(kid), &record) : STORE_E_REDIS;
	if (r == 0)
		r = store_usage(store, slice_str(kid), &usage);
	if (r)
		return complain_store(options, "show", store, r);
	if (!json)
		print_details(options->out, kid, &record, &usage);
	else if (print_details_json(options->out, kid, &record, &usage) < 0)
		return complain(options, "show", "out of memory");
	return EXIT_SUCCESS;
}

static int revoke(const struct policy_cli_options *options, const char *kid, bool json)
{
	CLEANUP(close_store) struct store *store = store_open(slice_str(options->redis_url));
	int r = store ? store_revoke(store, slice_str(kid)) : STORE_E_REDIS;
	if (r)
		return complain_store(options, "revoke", store, r);
	fprintf(options->out, json ? "{\"kid\":\"%s\",\"status\":\"revoked\"}\n" : "%s is revoked\n", kid);
	return EXIT_SUCCESS;
}

/* --- the words --------------------------------------------------------------- */

static void print_usage(FILE *out)
{
	fputs("usage: spritegate token create --actor NAME [flags]   make a token and print it, once\n"
	      "       spritegate token list [--json]                all tokens\n"
	      "       spritegate token show KID [--json]            one token, its limits and its use today\n"
	      "       spritegate token revoke KID [--json]          it is refused from the next call on\n"
	      "KID is the part after sgt_; `spritegate token create --help` lists the flags.\n",
	      out);
}

/* [KID] and --json, in any order. */
static int run_simple(int argc, char **argv, const struct policy_cli_options *options)
{
	const char *what = argv[0], *kid = NULL;
	bool json = false, wants_kid = strcmp(what, "list") != 0;
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0) {
			print_usage(options->out);
			return EXIT_SUCCESS;
		}
		if (strcmp(argv[i], "--json") == 0)
			json = true;
		else if (wants_kid && !kid && argv[i][0] != '-')
			kid = argv[i];
		else
			return complain_usage(options, what, wants_kid ? "takes one KID and --json" : "takes --json only");
	}
	if (!wants_kid)
		return list(options, json);
	if (!kid || !token_kid_is_valid(slice_str(kid)))
		return complain_usage(options, what, "needs a KID: the 16 letters and digits after sgt_");
	return strcmp(what, "show") == 0 ? show(options, kid, json) : revoke(options, kid, json);
}

int policy_cli(int argc, char **argv, const struct policy_cli_options *options)
{
	const char *what = argc > 0 ? argv[0] : "";
	if (strcmp(what, "create") == 0)
		return run_create(argc - 1, argv + 1, options);
	if (strcmp(what, "list") == 0 || strcmp(what, "show") == 0 || strcmp(what, "revoke") == 0)
		return run_simple(argc, argv, options);
	if (strcmp(what, "--help") == 0 || strcmp(what, "help") == 0) {
		print_usage(options->out);
		return EXIT_SUCCESS;
	}
	if (!argc) {
		print_usage(options->err);
		return EXIT_USAGE;
	}
	return complain_usage(options, "", "the commands are create, list, show and revoke; --help explains them");
}
