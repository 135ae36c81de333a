#include "gateway/endpoint/identity.h"

#include "gateway/base/buf.h"
#include "gateway/base/hmac.h"
#include "policy/record.h"
#include "policy/token.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define DEPTH_MAX 16
#define LABEL     "spritegate identity\n"

const char *identity_result_name(enum identity_result result)
{
	static const char *const names[] = {"known", "anonymous", "invalid", "denied", "failed"};
	return names[result];
}

/* --- rules -------------------------------------------------------------------------------------------------------------------- */

static bool is_scalar(const json_t *value)
{
	return json_is_string(value) || json_is_number(value) || json_is_boolean(value);
}

static bool is_block(json_t *allow)
{
	const char *name;
	json_t *value, *element;
	size_t i;
	if (json_is_true(allow))
		return true;
	json_object_foreach(allow, name, value)
	{
		if (!is_scalar(value) && !json_is_array(value))
			return false;
		json_array_foreach(value, i, element) if (!is_scalar(element)) return false;
	}
	return json_object_size(allow) > 0;
}

static const char *rule_fault(json_t *rule)
{
	struct slice policy;
	if (!json_get_string(rule, "policy", &policy) || !record_policy_name_is_valid(policy))
		return "`policy` must name a policy";
	if (!is_block(json_object_get(rule, "allow")))
		return "`allow` must be true or an object of texts, numbers, true, false and arrays of them";
	return json_object_size(rule) == 2 ? NULL : "has other members than `policy` and `allow`";
}

static int check(json_t *list, char problem[IDENTITY_PROBLEM])
{
	json_t *rule;
	size_t i;
	if (!json_array_size(list)) {
		snprintf(problem, IDENTITY_PROBLEM,
			 "must be an array of rules, like [{\"policy\": \"staff\", \"allow\": {\"id\": \"*\"}}]");
		return -EINVAL;
	}
	json_array_foreach(list, i, rule)
	{
		const char *fault = rule_fault(rule);
		if (!fault)
			continue;
		snprintf(problem, IDENTITY_PROBLEM, "rule %zu: %s", i + 1, fault);
		return -EINVAL;
	}
	return 0;
}

int identity_init(struct identity_rules *rules, const struct identity_options *options, char problem[IDENTITY_PROBLEM])
{
	struct json_failure failure;
	*rules = (struct identity_rules){.options = *options};
	if (!*options->rules)
		return 0;
	rules->list = json_parse(slice_str(options->rules), DEPTH_MAX, &failure);
	if (!rules->list) {
		snprintf(problem, IDENTITY_PROBLEM, "is not JSON: %.90s (byte %zu)", failure.text, failure.position);
		return -EINVAL;
	}
	int r = check(rules->list, problem);
	if (r < 0)
		identity_deinit(rules);
	return r;
}

void identity_deinit(struct identity_rules *rules)
{
	json_decref(rules->list);
	rules->list = NULL;
}

const char *identity_policy(const struct identity_rules *rules, size_t i)
{
	return json_string_value(json_object_get(json_array_get(rules->list, i), "policy"));
}

/* --- does an actor match? ----------------------------------------------------------------------------------------------------- */

static bool has(json_t *values, const json_t *wanted)
{
	json_t *value;
	size_t i;
	if (!json_is_array(values))
		return json_equal(values, wanted);
	json_array_foreach(values, i, value) if (json_equal(value, wanted)) return true;
	return false;
}

static bool any_of(json_t *wanted, json_t *values)
{
	json_t *one;
	size_t i;
	if (!json_is_array(wanted))
		return has(values, wanted);
	json_array_foreach(wanted, i, one) if (has(values, one)) return true;
	return false;
}

static bool matches(const json_t *actor, json_t *allow)
{
	const char *name;
	json_t *wanted;
	if (json_is_true(allow))
		return true;
	json_object_foreach(allow, name, wanted)
	{
		json_t *value = json_object_get(actor, name);
		bool any = json_is_string(wanted) && strcmp(json_string_value(wanted), "*") == 0;
		if (value && (any || any_of(wanted, value)))
			return true;
	}
	return false;
}

static const char *policy_of(const struct identity_rules *rules, const json_t *actor)
{
	json_t *rule;
	size_t i;
	json_array_foreach(rules->list, i, rule) if (matches(actor, json_object_get(rule, "allow"))) return json_string_value(
		json_object_get(rule, "policy"));
	return NULL;
}

/* A restricted token is of use only for what it names; what is not understood restricts everything. */
static bool is_restricted(const json_t *actor, const char *action)
{
	json_t *restrictions = json_object_get(actor, "_r"), *allowed = json_object_get(restrictions, "a"), *one;
	size_t i;
	json_array_foreach(allowed, i, one) if (json_is_string(one) && strcmp(json_string_value(one), action) == 0) return false;
	return restrictions != NULL;
}

/* --- whose limits --------------------------------------------------------------------------------------------------------------- */

/* The id as a name of an actor: what may not stand in one is written as %XX, so that two texts never become one name. The number 1 and
 * the text "1" are one actor, as is a token's --actor 1. */
static bool name_of(struct slice id, char out[RECORD_TEXT_MAX + 1])
{
	size_t len = 0;
	for (size_t i = 0; i < id.len; i++) {
		unsigned char c = (unsigned char)id.data[i];
		bool plain = c > ' ' && c < 0x7f && c != '"' && c != '\\' && c != '%';
		if (len + (plain ? 1 : 3) > RECORD_TEXT_MAX)
			return false;
		if (plain)
			out[len++] = (char)c;
		else
			len += (size_t)snprintf(out + len, 4, "%%%02X", c);
	}
	out[len] = '\0';
	return len > 0;
}

/* In place of a token's kid; the first character is in none of those. From the id as JSON: a number is not the text of its digits. */
static int kid_of(const struct identity_rules *rules, const char *id, char out[ADMISSION_KID_LEN + 1])
{
	static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
	unsigned char mac[HMAC_BYTES];
	CLEANUP(buf_deinit) struct buf text = BUF_MAX(2048);
	int r = buf_printf(&text, LABEL "%s", id);
	if (r == 0)
		r = hmac_sha256(secret_peek(rules->options.pepper), buf_peek(&text), mac);
	if (r < 0)
		return r;
	out[0] = TOKEN_IDENTITY_MARK;
	for (size_t i = 1; i < ADMISSION_KID_LEN; i++)
		out[i] = digits[mac[i] % (sizeof digits - 1)];
	out[ADMISSION_KID_LEN] = '\0';
	return 0;
}

/* Texts and whole numbers are ids; true leaves `who` without an actor for others. */
static int name_actor(const struct identity_rules *rules, const json_t *actor, struct admission_identity *who)
{
	json_t *id = json_object_get(actor, "id");
	if (!json_is_string(id) && !json_is_integer(id))
		return 0;
	CLEANUP(free_ptr) char *text = json_dumps(id, JSON_ENCODE_ANY | JSON_COMPACT);
	if (!text)
		return -ENOMEM;
	struct slice plain = json_is_string(id) ? slice_of(json_string_value(id), json_string_length(id)) : slice_str(text);
	if (!name_of(plain, who->actor)) {
		who->actor[0] = '\0';
		return 0;
	}
	return kid_of(rules, text, who->kid);
}

static int read_actor(const struct identity_rules *rules, const json_t *actor, struct identity *identity)
{
	const char *policy = policy_of(rules, actor);
	int r = name_actor(rules, actor, &identity->who);
	if (r < 0)
		return r;
	if (!policy || !identity->who.actor[0] || is_restricted(actor, rules->options.action)) {
		identity->result = IDENTITY_DENIED;
		return 0;
	}
	snprintf(identity->who.policy, sizeof identity->who.policy, "%s", policy);
	identity->result = IDENTITY_KNOWN;
	return 0;
}

static int read_body(const struct identity_rules *rules, struct slice body, struct identity *identity)
{
	struct json_failure failure;
	CLEANUP(json_decref_ptr) json_t *answer = json_parse(body, DEPTH_MAX, &failure);
	const json_t *ok = json_object_get(answer, "ok"), *actor = json_object_get(answer, "actor");
	if (ok && !json_is_true(ok))
		return 0;
	if (json_is_null(actor))
		identity->result = IDENTITY_ANONYMOUS;
	return json_is_object(actor) ? read_actor(rules, actor, identity) : 0;
}

int identity_read(const struct identity_rules *rules, unsigned status, struct slice body, struct identity *identity)
{
	*identity = (struct identity){.result = IDENTITY_FAILED};
	if (status == 200)
		return read_body(rules, body, identity);
	if (status == 401)
		identity->result = IDENTITY_INVALID;
	else if (status == 403 || (status >= 300 && status < 400))
		identity->result = IDENTITY_DENIED;
	return 0;
}
