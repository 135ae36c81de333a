/*
 * internal - what the files of the front end share (server, sweep, intake, settle, request, answer, bypass, upgraded); nobody else includes it
 *
 * A connection lives from libmicrohttpd's STARTED to its CLOSED notice. A request is taken from the server's free list when the request
 * line is known and goes back when libmicrohttpd says that it has completed; libmicrohttpd never has two at once on a connection.
 * What users ask for is noted in the request's flags and carried out in the check phase of the same loop turn (request_settle), so that
 * libmicrohttpd is only ever entered from one place, http_server's run().
 * It tells of the end of an upgraded request while it holds its lock of connections: nothing on the way from on_completed may call
 * MHD_* then, or the worker waits for itself.
 */
#pragma once

#include "gateway/http/request_id.h"
#include "gateway/http/server.h"

#include <microhttpd.h>

/* A body up to this size is read and dropped to keep the connection when it was answered early. */
#define DISCARD_MAX (64 * 1024)
/* After an answer that was sent in the middle of an upload: how much more is swallowed so that the client gets to read it. */
#define LINGER_MAX (4 * 1024 * 1024)

struct http_connection {
	struct http_connection *prev, *next;
	struct http_connection *rest_prev, *rest_next; /* in the list of those that rest */
	struct http_server *server;
	struct MHD_Connection *mhd;
	struct http_request *request; /* NULL between requests */
	uint64_t head_deadline_us;    /* when the next head must be complete; 0 = a request is under way, or it is being closed */
	int fd;
	bool gone;
	bool used;      /* there was a request on it */
	bool closing;                 /* hung up: what it had sent before is not carried out */
	bool counted;                 /* in the census */
	unsigned char address[16];
	char peer[INET6_ADDRSTRLEN];
};

enum request_phase {
	PHASE_HEAD, /* libmicrohttpd waits for our word before it reads the body */
	PHASE_BODY,
	PHASE_DONE, /* the whole request is here */
};

struct http_request {
	struct http_request *prev, *next; /* in the server's ready list, or next in the free list */
	struct http_server *server;
	struct http_connection *connection;

	struct http_head head;
	struct http_fields fields;
	size_t fields_seen;
	char id[ID_UUID_LEN + 1];
	char method[40]; /* enough for those that pass the guard */
	struct buf target;

	const struct http_sink *sink;
	void *ctx;
	enum http_guard_reason refusal;
	enum request_phase phase;
	uint64_t max_body, bytes_in, bytes_out, first_byte_us;
	uint64_t body_seen_us;       /* last time that body bytes came */
	unsigned slow_seconds;       /* seconds spent waiting for body bytes */
	unsigned stuck_seconds;      /* seconds in which the client did not take all of the answer that was there */
	uint64_t acked_before;       /* bytes that it had taken on this connection when the first of them began */
	uint64_t acked_last, acked_us; /* and at the last look; when that changed last */

	unsigned status;
	uint64_t length;             /* of the answer; HTTP_LENGTH_UNKNOWN until it has ended */
	struct buf answer;           /* the answer's fields (answer_head.h) */
	struct buf out;              /* body bytes not yet taken by libmicrohttpd */
	struct slice lent;           /* the whole body, instead */

	bool begun;                  /* the guard has seen it */
	bool queued;                 /* in the ready list */
	bool suspended;              /* libmicrohttpd does not look at the connection */
	bool reading;                /* the sink wants the body */
	bool held;     /* the sink wants it when it says so, or after HTTP_HOLD_MS */
	bool body_paused;            /* on_body took less than it was given */
	bool end_told, gone_told;
	bool answered, ended, committed;
	bool bodyless;               /* the answer has no body whatever is written */
	bool want_writable;
	bool more;     /* on_pull has something */
	bool gone;
	bool aborted;                /* close the connection at the next opportunity */
	bool aborted_by_user;
	bool short_answer;           /* the answer ends early: what is there is sent, then the connection is cut */
	bool slow;     /* aborted because the client was too slow */
	bool close;                  /* answer with Connection: close */

	const char *protocol;        /* the answer is 101 and names this one */
	struct upgraded *upgraded;   /* and it has left (upgraded.c) */

	/* An answer past libmicrohttpd (bypass.c): */
	bool bypassed;
	bool wire_chunked;
	bool wire_ended;             /* all of it is in `wire` */
	bool wire_done;              /* all of it is sent */
	struct buf wire;             /* framed and not yet sent */
	uint64_t answered_us;
	bool impatient;              /* the answer waited for the end of the body for long enough */
	uint64_t lingered;
};

struct http_server {
	struct http_server_options options;
	struct MHD_Daemon *daemon;
	size_t pool_size;
	uv_poll_t daemon_poll, gone_poll;
	uv_check_t check;
	uv_idle_t idle;
	uv_timer_t sweep;
	int epoll_fd; /* libmicrohttpd's */
	int gone_fd; /* epoll of all connections, edge-triggered, for EPOLLRDHUP only */
	unsigned open_handles;
	struct http_connection *connections;
	struct http_connection *resting; /* those with a head deadline; the one that is idle for longest first */
	struct http_request *ready, *free;
	size_t connection_count, in_flight, free_count;
	struct request_id_source ids;
	bool readable, sweep_due, draining, stopping;
	void (*on_stopped)(void *ctx);
	void *stopped_ctx;
};

/* server.c */
void server_kick(struct http_server *server);
void server_rejected(struct http_server *server);

/* sweep.c */
void sweep_connections(struct http_server *server, uint64_t now);
/* From now on idle, with this deadline; 0 = not idle. */
void connection_expect_head(struct http_connection *connection, uint64_t deadline_us);
/* By libmicrohttpd, after so long without a byte; 0 = never. */
void connection_time_out(struct http_connection *connection, unsigned seconds);
/* Dissolves the association of its connection: a reset leaves at once, and nothing that is queued for the client. */
void request_reset(struct http_request *request);
void connection_hang_up(struct http_connection *connection);
/* Has it sent something that nobody has read yet? Then it is not idle. */
bool connection_has_spoken(const struct http_connection *connection);
/* Tells a client without a request that one is not taken; connection_hang_up() follows. */
void connection_say(struct http_connection *connection, const struct http_problem *problem);

/* crowd.c: a new connection, which may cost another one its place, or be turned away itself. */
void crowd_enter(struct http_connection *connection);
void crowd_leave(struct http_connection *connection);

/* intake.c: called by server.c from libmicrohttpd's callbacks */
struct http_request *request_take(struct http_connection *connection, struct slice target);
enum MHD_Result request_step(struct http_request *request, const char *method, const char *version, const char *data, size_t *size);
void request_complete(struct http_request *request, enum MHD_RequestTerminationCode code);
/* Its connection is closed, and the memory of its fields is gone. */
void request_lost(struct http_request *request);
void request_free(struct http_request *request);

/* settle.c */
void request_settle(struct http_request *request);
/* request_settle() follows in this loop turn. */
void request_touch(struct http_request *request);
void request_suspend(struct http_request *request);
/* The connection is closed at the next opportunity. */
void request_cut(struct http_request *request);
/* Of an answer to HTTP/1.0 without a length, whose end is the end of the connection: only a reset tells that it is not whole. */
void request_show_cut(struct http_request *request);
/* The answer can still be influenced: something may be told to the sink and something may go wrong for it. */
bool request_is_open(const struct http_request *request);
/* Each at most once, and only when there is someone to tell. */
void request_tell_gone(struct http_request *request);
void request_tell_body_end(struct http_request *request);

/* request.c, which is also what users call */
void request_refuse(struct http_request *request, const struct http_problem *problem, enum http_guard_reason reason, const char *allow);

/* answer.c: from what the user said to what libmicrohttpd sends */
MUST_CHECK int answer_commit(struct http_request *request);

/* upgraded.c: what MHD_create_response_for_upgrade() needs, with the request as its context */
void upgraded_begin(void *ctx, struct MHD_Connection *mhd, void *request_ctx, const char *extra, size_t extra_len, MHD_socket fd,
		    struct MHD_UpgradeResponseHandle *handle);
/* Gives the connection back when it has ended, or is to. */
void upgraded_settle(struct http_request *request);
/* Now. */
void upgraded_close(struct http_request *request);

/* bypass.c */
MUST_CHECK int bypass_start(struct http_request *request);
/* Sends what can be sent; sets `aborted` when the connection is to be closed. */
void bypass_pump(struct http_request *request);
