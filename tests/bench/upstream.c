/*
 * upstream - a fast HTTP/1.1 server for the bench: answers made once, one thread, keep-alive
 *
 * usage: upstream PORT     on 127.0.0.1; /2k, /64k and /5m come with Content-Length, /chunked as four chunks of 512 bytes, /slow is /2k
 *                          after two milliseconds
 *
 * The heads are like those of Datasette under uvicorn. A request ends at its first empty line and the Content-Length bytes after it;
 * nothing else is checked.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FD_MAX   20000
#define HEAD_MAX 8192
#define SLOW_US  2000
#define HEAD                                                                                                     \
	"HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\nserver: uvicorn\r\n"                          \
	"link: <http://127.0.0.1/sample/items.json>; rel=\"alternate\"; type=\"application/json+datasette\"\r\n" \
	"cache-control: max-age=5\r\nreferrer-policy: no-referrer\r\ncontent-type: text/html; charset=utf-8\r\n"

struct answer {
	const char *start; /* of the requests it is for */
	int slow;
	size_t len;
	char *bytes;
};

struct connection {
	size_t len, sent;            /* of head, of the answer */
	size_t body_left;            /* of the request */
	long long due_us;            /* when the answer may go; 0 = now */
	const struct answer *answer; /* under way, waiting for room in the socket */
	char head[HEAD_MAX + 1];
};

static struct answer answers[] = {
	{.start = "/2k "}, {.start = "/64k "}, {.start = "/5m "}, {.start = "/slow ", .slow = 1}, {.start = "/chunked "}};
static struct connection *connections[FD_MAX];
static int epoll_fd;

/* All wait equally long, so this is in order; one that was dropped meanwhile has another due_us. */
static struct {
	int fd;
	long long due_us;
} waiting[FD_MAX];
static size_t first_waiting, end_waiting;

static long long now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void make_whole(struct answer *answer, size_t body)
{
	answer->bytes = malloc(body + sizeof HEAD + 64);
	if (!answer->bytes)
		err(1, "malloc");
	answer->len = (size_t)sprintf(answer->bytes, HEAD "content-length: %zu\r\n\r\n", body);
	memset(answer->bytes + answer->len, 'x', body);
	answer->len += body;
}

static void make_chunked(struct answer *answer)
{
	static char bytes[4096];
	answer->bytes = bytes;
	char *end = bytes + sprintf(answer->bytes, HEAD "transfer-encoding: chunked\r\n\r\n");
	for (int i = 0; i < 4; i++)
		end += sprintf(end, "200\r\n%0512d\r\n", i);
	end += sprintf(end, "0\r\n\r\n");
	answer->len = (size_t)(end - answer->bytes);
}

static void watch(int fd, int operation, unsigned events)
{
	struct epoll_event event = {.events = events, .data.fd = fd};
	if (epoll_ctl(epoll_fd, operation, fd, &event) < 0)
		err(1, "epoll_ctl");
}

static void drop(int fd)
{
	free(connections[fd]);
	connections[fd] = NULL;
	close(fd);
}

static void send_more(int fd, struct connection *connection, int waited)
{
	const struct answer *answer = connection->answer;
	ssize_t n = send(fd, answer->bytes + connection->sent, answer->len - connection->sent, MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN) {
		drop(fd);
		return;
	}
	connection->sent += n > 0 ? (size_t)n : 0;
	int done = connection->sent == answer->len;
	if (done)
		connection->answer = NULL;
	if (done == waited)
		watch(fd, EPOLL_CTL_MOD, done ? EPOLLIN : EPOLLOUT);
}

static void answer_later(int fd, struct connection *connection)
{
	waiting[end_waiting % FD_MAX].fd = fd;
	waiting[end_waiting++ % FD_MAX].due_us = connection->due_us = now_us() + SLOW_US;
}

static void answer_due(long long now)
{
	while (first_waiting != end_waiting && waiting[first_waiting % FD_MAX].due_us <= now) {
		int fd = waiting[first_waiting % FD_MAX].fd;
		long long due_us = waiting[first_waiting++ % FD_MAX].due_us;
		if (!connections[fd] || connections[fd]->due_us != due_us)
			continue;
		connections[fd]->due_us = 0;
		send_more(fd, connections[fd], 0);
	}
}

static void finish_request(int fd, struct connection *connection)
{
	if (connection->answer->slow)
		answer_later(fd, connection);
	else
		send_more(fd, connection, 0);
}

static void receive_body(int fd, struct connection *connection)
{
	static char body[256 * 1024];
	ssize_t n = recv(fd, body, sizeof body, 0);
	if (n <= 0 || (size_t)n > connection->body_left) {
		drop(fd);
		return;
	}
	connection->body_left -= (size_t)n;
	if (!connection->body_left)
		finish_request(fd, connection);
}

static void receive_head(int fd, struct connection *connection)
{
	ssize_t n = recv(fd, connection->head + connection->len, HEAD_MAX - connection->len, 0);
	if (n <= 0) {
		drop(fd);
		return;
	}
	connection->len += (size_t)n;
	connection->head[connection->len] = '\0';
	char *end = strstr(connection->head, "\r\n\r\n"), *target = strchr(connection->head, ' ');
	if (!end)
		return;
	for (size_t i = 0; target && i < sizeof answers / sizeof *answers; i++)
		if (strncmp(target + 1, answers[i].start, strlen(answers[i].start)) == 0)
			connection->answer = &answers[i];
	char *length = strcasestr(connection->head, "\r\ncontent-length:");
	size_t body = length && length < end ? (size_t)atol(length + 17) : 0;
	size_t here = connection->len - (size_t)(end + 4 - connection->head);
	connection->len = connection->sent = 0;
	if (!connection->answer || here > body) {
		drop(fd);
		return;
	}
	connection->body_left = body - here;
	if (!connection->body_left)
		finish_request(fd, connection);
}

static void take(int listener)
{
	int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0 || fd >= FD_MAX || !(connections[fd] = calloc(1, sizeof **connections)))
		err(1, "accept");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	watch(fd, EPOLL_CTL_ADD, EPOLLIN);
}

static void serve(int fd, int listener)
{
	if (fd == listener)
		take(listener);
	else if (!connections[fd])
		return;
	else if (connections[fd]->due_us)
		drop(fd);
	else if (connections[fd]->body_left)
		receive_body(fd, connections[fd]);
	else if (connections[fd]->answer)
		send_more(fd, connections[fd], 1);
	else
		receive_head(fd, connections[fd]);
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct epoll_event events[256];
	int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	address.sin_port = htons((unsigned short)atoi(argc > 1 ? argv[1] : "0"));
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 4096) < 0)
		err(1, "listen");
	make_whole(&answers[0], 2048);
	make_whole(&answers[1], 65536);
	make_whole(&answers[2], 5 * 1024 * 1024);
	make_whole(&answers[3], 2048);
	make_chunked(&answers[4]);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	watch(listener, EPOLL_CTL_ADD, EPOLLIN);
	for (;;) {
		int n = epoll_wait(epoll_fd, events, 256, first_waiting == end_waiting ? -1 : 1);
		for (int i = 0; i < n; i++)
			serve(events[i].data.fd, listener);
		answer_due(now_us());
	}
}
