#include "gateway/http/host.h"

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* reg-name (RFC 3986 section 3.2.2) without the comma, which some readers take for a list. */
static bool is_name(struct slice name)
{
	for (size_t i = 0; i < name.len; i++)
		if (!is_alnum(name.data[i]) && (!name.data[i] || !strchr("-._~%!$&'()*+;=", name.data[i])))
			return false;
	return name.len > 0;
}

static bool is_ipv6_text(struct slice text)
{
	for (size_t i = 0; i < text.len; i++)
		if (!is_alnum(text.data[i]) && text.data[i] != ':' && text.data[i] != '.')
			return false;
	return text.len > 1 && memchr(text.data, ':', text.len);
}

/* False when the parts cannot be told apart; *port is empty when there is none. */
static bool split(struct slice host, struct slice *name, struct slice *port)
{
	const char *colon;
	*port = (struct slice){0};
	if (host.len && host.data[0] == '[') {
		const char *end = memchr(host.data, ']', host.len);
		if (!end)
			return false;
		size_t len = (size_t)(end - host.data) + 1;
		*name = slice_of(host.data, len);
		struct slice rest = slice_from(host, len);
		if (rest.len && rest.data[0] != ':')
			return false;
		*port = slice_from(rest, 1);
		return true;
	}
	colon = host.len ? memchr(host.data, ':', host.len) : NULL;
	if (!colon) {
		*name = host;
		return true;
	}
	size_t len = (size_t)(colon - host.data);
	*name = slice_of(host.data, len);
	*port = slice_from(host, len + 1);
	return true;
}

bool http_host_is_valid(struct slice host)
{
	struct slice name, port;
	uint64_t number;
	if (!split(host, &name, &port))
		return false;
	if (port.len && slice_to_u64(port, 65535, &number) != 0)
		return false;
	if (name.len && name.data[0] == '[')
		return is_ipv6_text(slice_of(name.data + 1, name.len - 2));
	return is_name(name);
}

struct slice http_host_name(struct slice host)
{
	struct slice name, port;
	return split(host, &name, &port) ? name : (struct slice){0};
}

static struct slice without_default(struct slice port, struct slice scheme)
{
	struct slice standard = slice_equal_nocase(scheme, SLICE("https")) ? SLICE("443") : SLICE("80");
	return slice_equal(port, standard) ? (struct slice){0} : port;
}

bool http_host_equal(struct slice a, struct slice b, struct slice scheme)
{
	struct slice name_a, name_b, port_a, port_b;
	if (!split(a, &name_a, &port_a) || !split(b, &name_b, &port_b))
		return false;
	return slice_equal_nocase(name_a, name_b) && slice_equal(without_default(port_a, scheme), without_default(port_b, scheme));
}
