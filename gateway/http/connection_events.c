#include "gateway/http/connection_events.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct entry {
	void *connection; /* libmicrohttpd's, as it wants to see it in an event */
	bool known;       /* between begin and end */
	bool watched;     /* in the kernel's set */
	bool suspended;   /* but libmicrohttpd believes that it is not */
	bool missed;      /* something happened meanwhile */
	bool readable;    /* a read may give something: bytes, an end or an error */
	bool ended;       /* and always will */
	bool heard;       /* bytes have come since its last request ended */
};

static _Thread_local struct {
	struct entry *at;
	size_t size, used;
	unsigned wanted;
	int epoll_fd; /* libmicrohttpd's, of this thread */
	uint32_t events;
} table;

static struct entry *find(int fd)
{
	return fd >= 0 && (size_t)fd < table.size && table.at[fd].known ? &table.at[fd] : NULL;
}

static bool make_room(size_t index)
{
	size_t size = table.size ? table.size : 64;
	while (size <= index)
		size *= 2;
	if (size == table.size)
		return true;
	struct entry *at = reallocarray(table.at, size, sizeof *at);
	if (!at)
		return false;
	memset(at + table.size, 0, (size - table.size) * sizeof *at);
	table.at = at;
	table.size = size;
	return true;
}

void connection_events_begin(int fd)
{
	if (fd < 0 || !make_room((size_t)fd))
		return;
	table.used += !table.at[fd].known;
	table.at[fd] = (struct entry){.known = true};
}

void connection_events_suspend(int fd)
{
	struct entry *entry = find(fd);
	if (!entry)
		return;
	entry->suspended = entry->watched;
	entry->missed = false;
}

void connection_events_rest(int fd)
{
	struct entry *entry = find(fd);
	if (entry)
		entry->heard = false;
}

bool connection_events_heard(int fd)
{
	const struct entry *entry = find(fd);
	return entry && entry->heard;
}

void connection_events_leave(int epoll_fd, int fd)
{
	struct entry *entry = find(fd);
	if (!entry || !entry->watched)
		return;
	entry->watched = entry->suspended = false;
	epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

void connection_events_end(int fd)
{
	struct entry *entry = find(fd);
	if (!entry)
		return;
	entry->known = false;
	if (--table.used)
		return;
	free(table.at);
	table.at = NULL;
	table.size = 0;
}

/* Tells a descriptor from a pointer of libmicrohttpd: no pointer has this bit. */
#define OURS (UINT64_C(1) << 63)

static int watch(struct entry *entry, int epoll_fd, int fd, const struct epoll_event *event)
{
	/* EPOLLRDHUP, because an end that came together with bytes has no event of its own. */
	struct epoll_event ours = {.events = event->events | EPOLLRDHUP, .data.u64 = OURS | (unsigned)fd};
	bool known_to_kernel = entry->suspended;
	table.epoll_fd = epoll_fd;
	table.events = ours.events;
	entry->suspended = false;
	entry->connection = event->data.ptr;
	/* Edge-triggered: what libmicrohttpd was not told is only told again when it is asked for anew. */
	if (known_to_kernel && !entry->missed)
		return 0;
	entry->watched = epoll_ctl(epoll_fd, known_to_kernel ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &ours) == 0;
	return entry->watched ? 0 : -1;
}

int microhttpd_epoll_ctl(int epoll_fd, int operation, int fd, struct epoll_event *event)
{
	struct entry *entry = find(fd);
	if (!entry || (operation != EPOLL_CTL_ADD && operation != EPOLL_CTL_DEL))
		return epoll_ctl(epoll_fd, operation, fd, event);
	if (operation == EPOLL_CTL_ADD)
		return watch(entry, epoll_fd, fd, event);
	if (entry->suspended)
		return 0;
	entry->watched = false;
	return epoll_ctl(epoll_fd, operation, fd, event);
}

void connection_events_expect(unsigned most)
{
	table.wanted = most;
}

/* Whom to tell. */
static void *note(struct entry *entry, uint32_t events)
{
	entry->ended |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
	entry->readable |= entry->ended || (events & (EPOLLIN | EPOLLPRI));
	entry->missed |= entry->suspended;
	return entry->suspended ? NULL : entry->connection;
}

int microhttpd_epoll_wait(int epoll_fd, struct epoll_event *events, int max, int timeout_ms)
{
	if (!table.wanted)
		return 0;
	/* One that gets fewer than it has room for does not ask again. */
	int count = epoll_wait(epoll_fd, events, (unsigned)max < table.wanted ? max : (int)table.wanted, timeout_ms);
	for (int i = 0; i < count; i++) {
		if (!(events[i].data.u64 & OURS))
			continue;
		struct entry *entry = find((int)(events[i].data.u64 & ~OURS));
		/* libmicrohttpd passes over an event with NULL. */
		events[i].data.ptr = entry ? note(entry, events[i].events) : NULL;
	}
	return count;
}

/* libmicrohttpd takes a short read for the last one there is, and edge-triggered an end is told only once: with the bytes it came with. */
static void tell_end_again(int fd)
{
	struct epoll_event ours = {.events = table.events, .data.u64 = OURS | (unsigned)fd};
	epoll_ctl(table.epoll_fd, EPOLL_CTL_MOD, fd, &ours);
}

ssize_t microhttpd_recv(int fd, void *into, size_t room, int flags)
{
	struct entry *entry = find(fd);
	if (!entry || !entry->watched)
		return recv(fd, into, room, flags);
	if (!entry->readable) {
		errno = EAGAIN;
		return -1;
	}
	ssize_t got = recv(fd, into, room, flags);
	entry->heard |= got > 0;
	bool drained = got < 0 ? errno == EAGAIN : (size_t)got < room;
	entry->readable = !drained || entry->ended;
	if (entry->ended && got > 0 && drained)
		tell_end_again(fd);
	return got;
}
