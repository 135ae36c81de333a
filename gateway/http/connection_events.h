/*
 * connection_events - libmicrohttpd's connections stay in its epoll set while they are suspended
 *
 * libmicrohttpd takes a connection out of the set when it is suspended and puts it back later, and then reads from it to see whether it
 * has missed something: three system calls a request. Its calls of epoll_ctl, epoll_wait and recv come here instead
 * (cmake/microhttpd.cmake): what happens on a suspended connection is noted and not told, and a read that can give nothing is not made.
 *
 * Owns:       what is noted of each connection, by its descriptor.
 * Runs on:    the thread of a server; each has its own.
 * Bounds:     one entry of 16 bytes for each descriptor up to the highest that was a connection.
 * Invariants: a connection that is not known here is libmicrohttpd's alone, with every system call; so are other descriptors.
 */
#pragma once

#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/types.h>

/* A new connection, before libmicrohttpd waits for it; without memory it stays unknown. */
void connection_events_begin(int fd);
/* libmicrohttpd is about to suspend it. */
void connection_events_suspend(int fd);
/* Its request has ended. */
void connection_events_rest(int fd);
/* Has libmicrohttpd read anything of it since then? It says nothing of a request before its first line is whole. */
bool connection_events_heard(int fd);
/* How many events libmicrohttpd is told of each time it waits, the others the next time; of none it is told without a system call. */
void connection_events_expect(unsigned most);
/* It is libmicrohttpd's no more, but stays open: what happens on it wakes nobody here. */
void connection_events_leave(int epoll_fd, int fd);
/* It is about to be closed. */
void connection_events_end(int fd);

/* What libmicrohttpd calls. */
int microhttpd_epoll_ctl(int epoll_fd, int operation, int fd, struct epoll_event *event);
int microhttpd_epoll_wait(int epoll_fd, struct epoll_event *events, int max, int timeout_ms);
ssize_t microhttpd_recv(int fd, void *into, size_t room, int flags);
