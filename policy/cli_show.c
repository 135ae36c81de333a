#include "policy/cli_show.h"

#include "gateway/base/clock.h"
#include "gateway/base/json_text.h"
#include "policy/limits.h"

#include <arpa/inet.h>
#include <inttypes.h>

#define RULE_TEXT 1600
#define TIME_LEN  25

enum form { FORM_TEXT, FORM_COUNT, FORM_DURATION, FORM_BYTES, FORM_RATE, FORM_NETWORKS };

/* In the order of --help. A limit that is 0 or empty is not there. */
static const struct rule {
	const char *name; /* for people: its flag */
	const char *json;
	enum record_field field;
	enum form form;
} rules[] = {
	{"scope", "scopes", RECORD_SCOPES, FORM_TEXT},
	{"rate", "rate", RECORD_RATE_N, FORM_RATE},
	{"burst", "burst", RECORD_BURST, FORM_COUNT},
	{"actor-rate", "actor_rate", RECORD_ARATE_N, FORM_RATE},
	{"actor-burst", "actor_burst", RECORD_ABURST, FORM_COUNT},
	{"conc", "concurrency", RECORD_CONC, FORM_COUNT},
	{"actor-conc", "actor_concurrency", RECORD_ACONC, FORM_COUNT},
	{"budget", "budget_ms_per_day", RECORD_BUD_MS, FORM_DURATION},
	{"budget-out", "budget_output_bytes_per_day", RECORD_BUD_OUT, FORM_BYTES},
	{"max-run", "max_run_ms", RECORD_MAX_MS, FORM_DURATION},
	{"max-out", "max_output_bytes", RECORD_MAX_OUT, FORM_BYTES},
	{"max-in", "max_input_bytes", RECORD_MAX_IN, FORM_BYTES},
	{"max-procs", "max_processes", RECORD_MAX_PROCS, FORM_COUNT},
	{"max-file", "max_file_bytes", RECORD_MAX_FILE, FORM_BYTES},
	{"max-mem", "max_memory_bytes", RECORD_MAX_MEM, FORM_BYTES},
	{"cmd", "commands", RECORD_CMDS, FORM_TEXT},
	{"env", "environment", RECORD_ENV_ALLOW, FORM_TEXT},
	{"ip", "networks", RECORD_IP_ALLOW, FORM_NETWORKS},
	{"shadow", "shadow", RECORD_SHADOW, FORM_TEXT},
	{"egress", "egress", RECORD_EGRESS, FORM_TEXT},
	{"sessions", "sessions", RECORD_SESSIONS, FORM_COUNT},
};

static uint64_t number_of(const struct record *record, enum record_field field)
{
	switch (field) {
	case RECORD_RATE_N:
		return record->rate_n;
	case RECORD_BURST:
		return record->burst;
	case RECORD_ARATE_N:
		return record->arate_n;
	case RECORD_ABURST:
		return record->aburst;
	case RECORD_CONC:
		return record->conc;
	case RECORD_ACONC:
		return record->aconc;
	case RECORD_BUD_MS:
		return record->bud_ms;
	case RECORD_BUD_OUT:
		return record->bud_out;
	case RECORD_MAX_MS:
		return record->max_ms;
	case RECORD_MAX_OUT:
		return record->max_out;
	case RECORD_MAX_IN:
		return record->max_in;
	case RECORD_SESSIONS:
		return record->sessions;
	case RECORD_MAX_PROCS:
		return record->max_procs;
	case RECORD_MAX_FILE:
		return record->max_file;
	case RECORD_MAX_MEM:
		return record->max_mem;
	default:
		return 0;
	}
}

static const char *text_of(const struct record *record, enum record_field field)
{
	switch (field) {
	case RECORD_SCOPES:
		return record->scopes;
	case RECORD_CMDS:
		return record->cmds;
	case RECORD_ENV_ALLOW:
		return record->env_allow;
	case RECORD_IP_ALLOW:
		return record->ip_allow;
	case RECORD_SHADOW:
		return record->shadow;
	case RECORD_EGRESS:
		return record->egress;
	default:
		return "";
	}
}

static int hex_value(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* <32 digits>/<bits> as people write it; what is none as it stands. */
static void write_network(struct slice word, char out[64])
{
	static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
	unsigned char bytes[16];
	struct slice rest = word, digits;
	uint64_t bits;
	char address[INET6_ADDRSTRLEN];
	snprintf(out, 64, "%.*s", (int)(word.len < 60 ? word.len : 60), word.data);
	if (!slice_next(&rest, '/', &digits) || digits.len != 32 || !rest.data || slice_to_u64(rest, 128, &bits) < 0)
		return;
	for (size_t i = 0; i < 16; i++) {
		int high = hex_value(digits.data[2 * i]), low = hex_value(digits.data[2 * i + 1]);
		if (high < 0 || low < 0)
			return;
		bytes[i] = (unsigned char)(high * 16 + low);
	}
	bool v4 = bits >= 96 && memcmp(bytes, mapped, sizeof mapped) == 0;
	if (inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? bytes + 12 : bytes, address, sizeof address))
		snprintf(out, 64, "%s/%u", address, (unsigned)bits - (v4 ? 96 : 0));
}

static void write_networks(const char *list, char out[RULE_TEXT])
{
	struct slice rest = slice_str(list), word;
	size_t used = 0;
	out[0] = '\0';
	while (rest.len && slice_next(&rest, ' ', &word) && used + 64 < RULE_TEXT) {
		char network[64];
		write_network(word, network);
		used += (size_t)snprintf(out + used, RULE_TEXT - used, "%s%s", used ? " " : "", network);
	}
}

/* "" when there is no such limit. */
static void write_rule(const struct record *record, const struct rule *rule, char out[RULE_TEXT])
{
	char text[LIMITS_TEXT_LEN + 1] = "";
	uint64_t number = number_of(record, rule->field);
	uint64_t per_ms = rule->field == RECORD_RATE_N ? record->rate_per_ms : record->arate_per_ms;
	out[0] = '\0';
	switch (rule->form) {
	case FORM_TEXT:
		snprintf(out, RULE_TEXT, "%s", text_of(record, rule->field));
		break;
	case FORM_NETWORKS:
		write_networks(text_of(record, rule->field), out);
		break;
	case FORM_COUNT:
		snprintf(out, RULE_TEXT, "%" PRIu64, number);
		break;
	case FORM_DURATION:
		limits_write_duration(number, text);
		snprintf(out, RULE_TEXT, "%s%s", text, rule->field == RECORD_BUD_MS ? "/day" : "");
		break;
	case FORM_BYTES:
		limits_write_bytes(number, text);
		snprintf(out, RULE_TEXT, "%s%s", text, rule->field == RECORD_BUD_OUT ? "/day" : "");
		break;
	case FORM_RATE:
		limits_write_duration(per_ms, text);
		snprintf(out, RULE_TEXT, "%" PRIu64 "/%s", number, text);
		break;
	}
	if (rule->form != FORM_TEXT && rule->form != FORM_NETWORKS && !number)
		out[0] = '\0';
}

/* --- for people ---------------------------------------------------------------- */

static void write_time(uint64_t ms, const char *never, char out[TIME_LEN])
{
	snprintf(out, TIME_LEN, "%s", never);
	if (ms)
		clock_format(ms, out);
}

#define LINE "%-16s  %-9s  %-16s  %-12s  %-10s  %4s  %-10s  %-24s  %s\n"

void cli_show_heading(FILE *out)
{
	fprintf(out, LINE, "KID", "STATUS", "ACTOR", "POLICY", "RATE", "CONC", "BUDGET", "EXPIRES", "NAME");
}

static const char *status_of(const struct cli_token *token)
{
	return token->broken ? "broken" : token->own->status;
}

void cli_show_line(FILE *out, const struct cli_token *token)
{
	const struct record *r = token->rules;
	char rate[60], window[LIMITS_TEXT_LEN + 1], budget[LIMITS_TEXT_LEN + 1] = "-", expires[TIME_LEN], conc[24];
	limits_write_duration(r->rate_per_ms, window);
	snprintf(rate, sizeof rate, "%" PRIu64 "/%s", r->rate_n, window);
	snprintf(conc, sizeof conc, "%" PRIu64, r->conc);
	if (r->bud_ms)
		limits_write_duration(r->bud_ms, budget);
	write_time(token->own->exp, "never", expires);
	fprintf(out, LINE, token->kid, status_of(token), token->own->actor, token->own->pol[0] ? token->own->pol : "-", rate, conc, budget,
		expires, token->own->name);
}

#define USAGE_LINE "%-16s  %-9s  %-16s  %-12s  %7s  %8s  %12s  %12s  %14s\n"

void cli_show_usage_heading(FILE *out)
{
	fprintf(out, USAGE_LINE, "KID", "STATUS", "ACTOR", "POLICY", "RUNNING", "COMMANDS", "USED", "HELD", "OUTPUT BYTES");
}

void cli_show_usage(FILE *out, const struct cli_token *token, const struct store_usage *usage)
{
	char running[24], requests[24], bytes[24], used[LIMITS_TEXT_LEN + 1], held[LIMITS_TEXT_LEN + 1];
	snprintf(running, sizeof running, "%" PRIu64, usage->running);
	snprintf(requests, sizeof requests, "%" PRIu64, usage->requests);
	snprintf(bytes, sizeof bytes, "%" PRIu64, usage->out_bytes);
	limits_write_duration(usage->used_ms, used);
	limits_write_duration(usage->held_ms, held);
	fprintf(out, USAGE_LINE, token->kid, status_of(token), token->own->actor, token->own->pol[0] ? token->own->pol : "-", running,
		requests, used, held, bytes);
}

void cli_show_rules(FILE *out, const struct record *record)
{
	for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
		char text[RULE_TEXT];
		write_rule(record, &rules[i], text);
		if (text[0])
			fprintf(out, "%-12s %s\n", rules[i].name, text);
	}
}

static void show_time(FILE *out, const char *name, uint64_t ms)
{
	char text[TIME_LEN];
	if (!ms)
		return;
	write_time(ms, "", text);
	fprintf(out, "%-12s %s\n", name, text);
}

static void show_text(FILE *out, const char *name, const char *text)
{
	if (text[0])
		fprintf(out, "%-12s %s\n", name, text);
}

void cli_show_details(FILE *out, const struct cli_token *token, const struct store_usage *usage)
{
	const struct record *own = token->own;
	char used[LIMITS_TEXT_LEN + 1], held[LIMITS_TEXT_LEN + 1];
	show_text(out, "kid", token->kid);
	show_text(out, "status", status_of(token));
	if (token->broken)
		fprintf(out, "%-12s %s\n", "broken", token->broken);
	show_text(out, "actor", own->actor);
	show_text(out, "name", own->name);
	if (own->pol[0])
		fprintf(out, "%-12s %s, version %" PRIu64 "\n", "policy", own->pol, token->policy_version);
	fprintf(out, "%-12s %" PRIu64 "\n", "version", own->ver);
	show_time(out, "created", own->created);
	show_text(out, "created by", own->created_by);
	show_time(out, "not before", own->nbf);
	show_time(out, "expires", own->exp);
	show_time(out, "old until", own->pmac_until);
	cli_show_rules(out, token->rules);
	limits_write_duration(usage->used_ms, used);
	limits_write_duration(usage->held_ms, held);
	fprintf(out, "%-12s %" PRIu64 " running\n", "now", usage->running);
	fprintf(out, "%-12s %" PRIu64 " commands, %s used, %s held, %" PRIu64 " bytes of output\n", "today", usage->requests, used, held,
		usage->out_bytes);
}

void cli_show_limits(FILE *out, const struct record *record)
{
	char window[LIMITS_TEXT_LEN + 1], run[LIMITS_TEXT_LEN + 1], budget[LIMITS_TEXT_LEN + 1];
	limits_write_duration(record->rate_per_ms, window);
	limits_write_duration(record->max_ms, run);
	limits_write_duration(record->bud_ms, budget);
	fprintf(out, "rate %" PRIu64 "/%s burst %" PRIu64 ", %" PRIu64 " at once, %s a run, budget %s%s\n", record->rate_n, window,
		record->burst, record->conc, run, record->bud_ms ? budget : "none", record->bud_ms ? "/day" : "");
}

size_t cli_show_diff(FILE *out, const struct record *before, const struct record *after)
{
	size_t count = 0;
	for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
		char old[RULE_TEXT], new[RULE_TEXT];
		write_rule(before, &rules[i], old);
		write_rule(after, &rules[i], new);
		if (strcmp(old, new) == 0)
			continue;
		count++;
		if (old[0])
			fprintf(out, "- %-12s %s\n", rules[i].name, old);
		if (new[0])
			fprintf(out, "+ %-12s %s\n", rules[i].name, new);
	}
	return count;
}

/* --- for programs --------------------------------------------------------------- */

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
	char text[TIME_LEN];
	write_time(ms, "", text);
	return add_text(json, name, text);
}

static int add_rules(struct buf *json, const struct record *record)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < ARRAY_LEN(rules); i++) {
		char text[RULE_TEXT];
		if (rules[i].form != FORM_TEXT && rules[i].form != FORM_NETWORKS) {
			r = add_number(json, rules[i].json, number_of(record, rules[i].field));
			continue;
		}
		write_rule(record, &rules[i], text);
		r = add_text(json, rules[i].json, text);
	}
	r = r ? r : add_number(json, "rate_per_ms", record->rate_per_ms);
	return r ? r : add_number(json, "actor_rate_per_ms", record->arate_n ? record->arate_per_ms : 0);
}

int cli_show_json(struct buf *json, const struct cli_token *token, const struct store_usage *usage)
{
	const struct record *own = token->own;
	int r = buf_printf(json, "{\"kid\":\"%s\"", token->kid);
	r = r ? r : add_text(json, "actor", own->actor);
	r = r ? r : add_text(json, "name", own->name);
	r = r ? r : add_text(json, "status", own->status);
	r = r ? r : add_text(json, "broken", token->broken ? token->broken : "");
	r = r ? r : add_text(json, "policy", own->pol);
	r = r ? r : add_number(json, "policy_version", token->policy_version);
	r = r ? r : add_number(json, "version", own->ver);
	r = r ? r : add_time(json, "created", own->created);
	r = r ? r : add_text(json, "created_by", own->created_by);
	r = r ? r : add_time(json, "not_before", own->nbf);
	r = r ? r : add_time(json, "expires", own->exp);
	r = r ? r : add_time(json, "previous_secret_until", own->pmac_until);
	r = r ? r : add_rules(json, token->rules);
	if (r == 0 && usage)
		r = buf_printf(json,
			       ",\"usage\":{\"running\":%" PRIu64 ",\"used_ms\":%" PRIu64 ",\"held_ms\":%" PRIu64
			       ",\"output_bytes\":%" PRIu64 ",\"commands\":%" PRIu64 "}",
			       usage->running, usage->used_ms, usage->held_ms, usage->out_bytes, usage->requests);
	return r ? r : buf_append_char(json, '}');
}

static int add_value(struct buf *json, const char *name, const char *text)
{
	int r = buf_printf(json, ",\"%s\":", name);
	if (r)
		return r;
	return text[0] ? json_text_string(json, slice_str(text)) : buf_append(json, SLICE("null"));
}

int cli_show_diff_json(struct buf *json, const struct record *before, const struct record *after)
{
	int r = buf_append(json, SLICE("["));
	bool first = true;
	for (size_t i = 0; r == 0 && i < ARRAY_LEN(rules); i++) {
		char old[RULE_TEXT], new[RULE_TEXT];
		write_rule(before, &rules[i], old);
		write_rule(after, &rules[i], new);
		if (strcmp(old, new) == 0)
			continue;
		r = buf_printf(json, "%s{\"flag\":\"%s\"", first ? "" : ",", rules[i].name);
		r = r ? r : add_value(json, "before", old);
		r = r ? r : add_value(json, "after", new);
		r = r ? r : buf_append_char(json, '}');
		first = false;
	}
	return r ? r : buf_append_char(json, ']');
}

int cli_show_policy_json(struct buf *json, const char *name, const struct record *policy)
{
	int r = buf_printf(json, "{\"policy\":\"%s\",\"version\":%" PRIu64, name, policy->ver);
	r = r ? r : add_text(json, "name", policy->name);
	r = r ? r : add_time(json, "changed", policy->created);
	r = r ? r : add_rules(json, policy);
	return r ? r : buf_append_char(json, '}');
}
