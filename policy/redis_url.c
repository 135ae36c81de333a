#include "policy/redis_url.h"

#include "gateway/base/secret.h"

#include <errno.h>

#define PORT_DEFAULT 6379
#define DB_MAX       65535

static int fail(const char **why, const char *text)
{
	*why = text;
	return -EINVAL;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Undoes percent-encoding into a C string; false when it does not fit, is malformed or holds a NUL. */
static bool decode(struct slice text, char *out, size_t size)
{
	size_t len = 0;
	for (size_t i = 0; i < text.len; i++) {
		int c = (unsigned char)text.data[i];
		if (c == '%') {
			if (text.len - i < 3)
				return false;
			int high = hex_digit(text.data[i + 1]), low = hex_digit(text.data[i + 2]);
			if (high < 0 || low < 0)
				return false;
			c = high * 16 + low;
			i += 2;
		}
		if (c == 0 || len + 1 >= size)
			return false;
		out[len++] = (char)c;
	}
	out[len] = '\0';
	return true;
}

/* Splits at the last `separator`; false when there is none. */
static bool split_last(struct slice text, char separator, struct slice *before, struct slice *after)
{
	for (size_t i = text.len; i > 0; i--) {
		if (text.data[i - 1] != separator)
			continue;
		*before = slice_of(text.data, i - 1);
		*after = slice_from(text, i);
		return true;
	}
	return false;
}

static int parse_login(struct slice *authority, struct redis_url *url, const char **why)
{
	struct slice login, rest;
	if (!split_last(*authority, '@', &login, &rest))
		return 0;
	*authority = rest;
	struct slice user = {0};
	struct slice password = login;
	if (!slice_next(&password, ':', &user) || !password.data)
		return fail(why, "a login is written user:password@ or :password@");
	if (!decode(user, url->user, sizeof url->user) || !decode(password, url->password, sizeof url->password))
		return fail(why, "user or password is too long or wrongly percent-encoded");
	if (url->user[0] && !url->password[0])
		return fail(why, "a user needs a password");
	return 0;
}

static int parse_db(struct slice text, struct redis_url *url, const char **why)
{
	uint64_t db = 0;
	if (slice_to_u64(text, DB_MAX, &db) < 0)
		return fail(why, "the database is a number");
	url->db = (unsigned)db;
	return 0;
}

static bool is_host_char(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '.' || c == '-' || c == '_';
}

static int parse_host(struct slice authority, struct redis_url *url, const char **why)
{
	struct slice host = authority, port = {0};
	bool has_port = false;
	bool bracketed = authority.len && authority.data[0] == '[';
	if (bracketed) {
		if (!split_last(authority, ']', &host, &port))
			return fail(why, "the bracket of the IPv6 address is not closed");
		host = slice_from(host, 1);
		has_port = port.len > 0;
		if (has_port && port.data[0] != ':')
			return fail(why, "a port must follow the bracket");
		port = slice_from(port, 1);
	} else {
		has_port = split_last(authority, ':', &host, &port);
		for (size_t i = 0; i < host.len; i++)
			if (!is_host_char(host.data[i]))
				return fail(why, "the host name has a character that no host name has");
	}
	if (host.len == 0 || host.len >= sizeof url->host || memchr(host.data, '\0', host.len))
		return fail(why, "the host is missing or too long");
	memcpy(url->host, host.data, host.len);
	url->host[host.len] = '\0';
	uint64_t number = PORT_DEFAULT;
	if (has_port && (slice_to_u64(port, UINT16_MAX, &number) < 0 || number == 0))
		return fail(why, "the port is a number from 1 to 65535");
	url->port = (uint16_t)number;
	return 0;
}

static int parse_network(struct slice text, struct redis_url *url, const char **why)
{
	struct slice authority = text, db = {0};
	const char *slash = text.len ? memchr(text.data, '/', text.len) : NULL;
	if (slash) {
		authority = slice_of(text.data, (size_t)(slash - text.data));
		db = slice_from(text, authority.len + 1);
	}
	int r = parse_login(&authority, url, why);
	if (r == 0)
		r = parse_host(authority, url, why);
	if (r == 0 && db.len)
		r = parse_db(db, url, why);
	return r;
}

static int parse_unix(struct slice text, struct redis_url *url, const char **why)
{
	struct slice path = text, query;
	const char *mark = text.len ? memchr(text.data, '?', text.len) : NULL;
	if (mark) {
		path = slice_of(text.data, (size_t)(mark - text.data));
		query = slice_from(text, path.len + 1);
		if (!slice_has_prefix(query, SLICE("db=")))
			return fail(why, "only ?db= may follow the path");
		int r = parse_db(slice_from(query, 3), url, why);
		if (r < 0)
			return r;
	}
	if (path.len && path.data[0] != '/') {
		int r = parse_login(&path, url, why);
		if (r < 0)
			return r;
	}
	if (path.len < 2 || path.data[0] != '/')
		return fail(why, "the path of the socket must start with /");
	if (!decode(path, url->path, sizeof url->path))
		return fail(why, "the path of the socket is too long or wrongly percent-encoded");
	return 0;
}

int redis_url_parse(struct slice text, struct redis_url *url, const char **why)
{
	*url = (struct redis_url){0};
	int r;
	if (slice_has_prefix(text, SLICE("redis://"))) {
		r = parse_network(slice_from(text, 8), url, why);
	} else if (slice_has_prefix(text, SLICE("rediss://"))) {
		url->tls = true;
		r = parse_network(slice_from(text, 9), url, why);
	} else if (slice_has_prefix(text, SLICE("unix://"))) {
		r = parse_unix(slice_from(text, 7), url, why);
	} else {
		r = fail(why, "it must start with redis://, rediss:// or unix://");
	}
	if (r < 0)
		redis_url_wipe(url);
	return r;
}

void redis_url_wipe(struct redis_url *url)
{
	secret_wipe(url, sizeof *url);
}
