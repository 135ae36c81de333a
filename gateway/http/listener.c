#include "gateway/http/listener.h"

#include "gateway/base/keepalive.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <linux/filter.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

static int fail(char error[LISTENER_ERROR_LEN], struct slice text, const char *why)
{
	snprintf(error, LISTENER_ERROR_LEN, "\"%.*s\": %s", (int)(text.len > 80 ? 80 : text.len), text.len ? text.data : "", why);
	return -EINVAL;
}

static int parse_v6(const char *host, uint16_t port, struct listener_address *address)
{
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	if (inet_pton(AF_INET6, host, &v6.sin6_addr) != 1)
		return -EINVAL;
	memcpy(&address->storage, &v6, sizeof v6);
	address->len = sizeof v6;
	return 0;
}

static int parse_v4(const char *host, uint16_t port, struct listener_address *address)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
	if (inet_pton(AF_INET, host, &v4.sin_addr) != 1)
		return -EINVAL;
	memcpy(&address->storage, &v4, sizeof v4);
	address->len = sizeof v4;
	return 0;
}

int listener_parse(struct slice text, struct listener_address *address, char error[LISTENER_ERROR_LEN])
{
	*address = (struct listener_address){.len = 0};
	const char *colon = text.len ? memrchr(text.data, ':', text.len) : NULL;
	if (!colon)
		return fail(error, text, "an address needs a port, as in 127.0.0.1:8080 or [::]:8080");
	struct slice host = slice_of(text.data, (size_t)(colon - text.data));
	uint64_t port;
	if (slice_to_u64(slice_from(text, host.len + 1), 65535, &port) != 0)
		return fail(error, text, "the port must be a number from 0 to 65535");
	bool v6 = host.len >= 2 && host.data[0] == '[' && host.data[host.len - 1] == ']';
	if (v6)
		host = slice_of(host.data + 1, host.len - 2);
	char name[INET6_ADDRSTRLEN];
	if (host.len >= sizeof name)
		return fail(error, text, "not an IPv4 address or an IPv6 address in brackets");
	memcpy(name, host.data, host.len);
	name[host.len] = '\0';
	int r = v6 ? parse_v6(name, (uint16_t)port, address) : parse_v4(name, (uint16_t)port, address);
	return r == 0 ? 0 : fail(error, text, "not an IPv4 address or an IPv6 address in brackets");
}

static int give_up(int fd, const char *what, char error[LISTENER_ERROR_LEN])
{
	int code = errno;
	if (code == EADDRINUSE)
		snprintf(error, LISTENER_ERROR_LEN, "the address is in use: another program listens there");
	else
		snprintf(error, LISTENER_ERROR_LEN, "%s: %s", what, strerror(code));
	if (fd >= 0)
		close(fd);
	return -code;
}

static int share(int fd)
{
	const int on = 1;
	return setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
}

/* Of an answer no more than this is queued for a client that does not take it: otherwise the kernel keeps megabytes for each. Connections
 * have it from the socket that accepts them. */
static int bound_queue(int fd)
{
	const int unsent_max = 128 * 1024;
	return setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent_max, sizeof unsent_max);
}

static int open_one(struct sockaddr_storage *address, socklen_t len, unsigned silence_ms, bool first, int *fd,
		    char error[LISTENER_ERROR_LEN])
{
	const int on = 1, off = 0;
	int s = socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s < 0)
		return give_up(s, "socket", error);
	/* [::] also takes IPv4, which Fly's proxy may use. */
	if (address->ss_family == AF_INET6 && setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) < 0)
		return give_up(s, "IPV6_V6ONLY", error);
	if (setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
		return give_up(s, "SO_REUSEADDR", error);
	if (!first && share(s) < 0)
		return give_up(s, "SO_REUSEPORT", error);
	if (bound_queue(s) < 0)
		return give_up(s, "TCP_NOTSENT_LOWAT", error);
	if (keepalive_set(s, silence_ms) < 0)
		return give_up(s, "SO_KEEPALIVE", error);
	if (bind(s, (struct sockaddr *)address, len) < 0)
		return give_up(s, "bind", error);
	if (listen(s, SOMAXCONN) < 0)
		return give_up(s, "listen", error);
	/* The others need its port when the kernel has chosen one. */
	if (first && (share(s) < 0 || getsockname(s, (struct sockaddr *)address, &len) < 0))
		return give_up(s, "SO_REUSEPORT", error);
	*fd = s;
	return 0;
}

int listener_open(const struct listener_address *address, unsigned silence_ms, int *fds, size_t count, char error[LISTENER_ERROR_LEN])
{
	struct sockaddr_storage storage = address->storage;
	for (size_t i = 0; i < count; i++) {
		int r = open_one(&storage, address->len, silence_ms, i == 0, &fds[i], error);
		if (r == 0)
			continue;
		while (i > 0)
			close(fds[--i]);
		return r;
	}
	return 0;
}

/* A client sends its SYN again after a second and is refused then, by which time the socket is closed. */
int listener_refuse(int fd)
{
	enum { TCP_FLAGS_AT = 13, TCP_FLAG_SYN = 0x02 };
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, TCP_FLAGS_AT),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, TCP_FLAG_SYN, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, 0),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
	};
	const struct sock_fprog filter = {.len = ARRAY_LEN(code), .filter = code};
	const int no_device = INT_MAX;
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) == 0)
		return 0;
	/* Recent kernels want CAP_NET_ADMIN for that, which nobody has who serves. Where the socket belongs to a device that does not exist, SYNs
	 * do not find it any more, and what has begun stays: its client is refused at once. */
	return setsockopt(fd, SOL_SOCKET, SO_BINDTOIFINDEX, &no_device, sizeof no_device) < 0 ? -errno : 0;
}

bool listener_has_backlog(int fd)
{
	struct pollfd waiting = {.fd = fd, .events = POLLIN};
	return poll(&waiting, 1, 0) == 1 && (waiting.revents & POLLIN);
}
