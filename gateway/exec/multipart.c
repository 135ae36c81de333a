#include "gateway/exec/multipart.h"

#include <stdio.h>

#define HEAD_MAX 4096

/* --- fields ----------------------------------------------------------------------------------- */

/* RFC 9110 section 5.6.2 */
static bool is_token(struct slice text)
{
	static const char others[] = "!#$%&'*+-.^_`|~";
	for (size_t i = 0; i < text.len; i++) {
		char c = text.data[i];
		bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
		if (!letter && !memchr(others, c, sizeof others - 1))
			return false;
	}
	return text.len;
}

/* "; name=value" or "; name="value"", the quotes without; false when it is neither. */
static bool take_parameter(struct slice *rest, struct slice *name, struct slice *value)
{
	struct slice text = slice_trim(*rest);
	if (!text.len || text.data[0] != ';')
		return false;
	text = slice_trim(slice_from(text, 1));
	const char *equals = memchr(text.data ? text.data : "", '=', text.len);
	if (!equals)
		return false;
	*name = slice_of(text.data, (size_t)(equals - text.data));
	text = slice_from(text, name->len + 1);
	size_t len = 0;
	if (text.len && text.data[0] == '"') {
		for (len = 1; len < text.len && text.data[len] != '"'; len++)
			len += text.data[len] == '\\';
		if (len >= text.len)
			return false;
		*value = slice_of(text.data + 1, len - 1);
		len++;
	} else {
		while (len < text.len && text.data[len] != ';')
			len++;
		*value = slice_trim(slice_of(text.data, len));
		if (!is_token(*value))
			return false;
	}
	*rest = slice_from(text, len);
	return is_token(*name);
}

/* Its one parameter of this name; false when there is none, two, or a fault anywhere. */
static bool find_parameter(struct slice parameters, struct slice wanted, struct slice *value)
{
	struct slice name, each;
	bool found = false;
	while (slice_trim(parameters).len) {
		if (!take_parameter(&parameters, &name, &each))
			return false;
		if (!slice_equal_nocase(name, wanted))
			continue;
		if (found)
			return false;
		found = true;
		*value = each;
	}
	return found;
}

static bool has_type(struct slice value, struct slice type, struct slice *parameters)
{
	size_t len = 0;
	while (len < value.len && value.data[len] != ';')
		len++;
	*parameters = slice_from(value, len);
	return slice_equal_nocase(slice_trim(slice_of(value.data, len)), type);
}

bool multipart_boundary(struct slice content_type, char boundary[MULTIPART_BOUNDARY_MAX + 1])
{
	static const char allowed[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'()+_,-./:=? ";
	struct slice parameters, value;
	if (!has_type(content_type, SLICE("multipart/form-data"), &parameters) || !find_parameter(parameters, SLICE("boundary"), &value))
		return false;
	if (!value.len || value.len > MULTIPART_BOUNDARY_MAX || value.data[value.len - 1] == ' ')
		return false;
	for (size_t i = 0; i < value.len; i++)
		if (!memchr(allowed, value.data[i], sizeof allowed - 1))
			return false;
	memcpy(boundary, value.data, value.len);
	boundary[value.len] = '\0';
	return true;
}

/* --- parts ------------------------------------------------------------------------------------ */

static int bad(struct multipart *multipart, const char *what)
{
	snprintf(multipart->detail, sizeof multipart->detail, "Part %zu %s.", multipart->count, what);
	return MULTIPART_E_BAD;
}

static bool is_name(struct slice name)
{
	static const char allowed[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-.";
	for (size_t i = 0; i < name.len; i++)
		if (!memchr(allowed, name.data[i], sizeof allowed - 1))
			return false;
	return name.len && name.len <= MULTIPART_NAME_MAX;
}

static int read_disposition(struct multipart *multipart, struct multipart_part *part, struct slice value)
{
	struct slice parameters, name;
	if (part->name[0])
		return bad(multipart, "has two Content-Disposition");
	if (!has_type(value, SLICE("form-data"), &parameters) || !find_parameter(parameters, SLICE("name"), &name))
		return bad(multipart, "has a Content-Disposition that is not form-data with a name");
	if (!is_name(name))
		return bad(multipart, "has a name that is not 1 to 64 of letters, digits, dot, dash and underscore");
	snprintf(part->name, sizeof part->name, "%.*s", SLICE_FMT(name));
	return 0;
}

static int read_field(struct multipart *multipart, struct multipart_part *part, struct slice line)
{
	const char *colon = memchr(line.data ? line.data : "", ':', line.len);
	struct slice name = slice_of(line.data, colon ? (size_t)(colon - line.data) : 0);
	struct slice value = slice_trim(slice_from(line, name.len + 1));
	if (!is_token(name))
		return bad(multipart, "has a header line that is none");
	if (slice_equal_nocase(name, SLICE("Content-Disposition")))
		return read_disposition(multipart, part, value);
	bool plain = slice_equal_nocase(value, SLICE("binary")) || slice_equal_nocase(value, SLICE("8bit")) ||
		     slice_equal_nocase(value, SLICE("7bit"));
	if (slice_equal_nocase(name, SLICE("Content-Transfer-Encoding")) && !plain)
		return bad(multipart, "has a Content-Transfer-Encoding, which RFC 7578 does not allow");
	return 0;
}

/* Takes its lines, with the empty one that ends them. */
static int read_head(struct multipart *multipart, struct multipart_part *part, struct slice *rest)
{
	struct slice head = *rest;
	if (head.len > HEAD_MAX)
		head.len = HEAD_MAX;
	for (;;) {
		const char *end = memmem(head.data ? head.data : "", head.len, "\r\n", 2);
		if (!end)
			return bad(multipart, "has a head that does not end within 4096 bytes");
		struct slice line = slice_of(head.data, (size_t)(end - head.data));
		head = slice_from(head, line.len + 2);
		*rest = slice_from(*rest, line.len + 2);
		if (!line.len)
			break;
		int r = read_field(multipart, part, line);
		if (r != 0)
			return r;
	}
	return part->name[0] ? 0 : bad(multipart, "has no Content-Disposition");
}

/* `delimiter` is "\r\n--boundary". Takes the part with the delimiter at its end. */
static int read_part(struct multipart *multipart, struct slice delimiter, struct slice *rest)
{
	struct multipart_part part = {0};
	if (multipart->count++ == MULTIPART_PARTS)
		return bad(multipart, "is one too many, the limit is 260");
	int r = read_head(multipart, &part, rest);
	if (r != 0)
		return r;
	const char *end = memmem(rest->data ? rest->data : "", rest->len, delimiter.data, delimiter.len);
	if (!end)
		return bad(multipart, "is not ended by a boundary");
	if (multipart_find(multipart, part.name))
		return bad(multipart, "has the name of an earlier one");
	part.bytes = slice_of(rest->data, (size_t)(end - rest->data));
	*rest = slice_from(*rest, part.bytes.len + delimiter.len);
	multipart->parts[multipart->count - 1] = part;
	return 0;
}

int multipart_parse(struct multipart *multipart, const char *boundary, struct slice body)
{
	char text[MULTIPART_BOUNDARY_MAX + 5];
	int len = snprintf(text, sizeof text, "\r\n--%s", boundary);
	struct slice delimiter = slice_of(text, (size_t)len);
	*multipart = (struct multipart){0};
	if (!slice_has_prefix(body, slice_from(delimiter, 2))) {
		snprintf(multipart->detail, sizeof multipart->detail, "The body does not begin with the boundary.");
		return MULTIPART_E_BAD;
	}
	body = slice_from(body, delimiter.len - 2);
	while (slice_has_prefix(body, SLICE("\r\n"))) {
		body = slice_from(body, 2);
		int r = read_part(multipart, delimiter, &body);
		if (r != 0)
			return r;
	}
	if (slice_equal(body, SLICE("--")) || slice_equal(body, SLICE("--\r\n")))
		return 0;
	return bad(multipart, "is not followed by a part or the end");
}

struct multipart_part *multipart_find(struct multipart *multipart, const char *name)
{
	for (size_t i = 0; i < multipart->count; i++)
		if (strcmp(multipart->parts[i].name, name) == 0)
			return &multipart->parts[i];
	return NULL;
}
