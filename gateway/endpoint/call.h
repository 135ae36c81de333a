/*
 * call - one request of /-/agent/exec on its worker; shared by the files of the endpoint (endpoint, call and call_*), nobody else
 * includes it
 *
 * Owns:       its body, its parsed command, a question under way in Redis or to Datasette, pieces of its answer that the client has not
 *             taken yet.
 *             The request belongs to http, the job to the agent.
 * Lifetime:   call_start … on_finished of its request.
 * Runs on:    the endpoint's loop.
 * Invariants: it is answered once; it is in the endpoint's list while the agent has its job.
 */
#pragma once

#include "gateway/base/log.h"
#include "gateway/datasette/turn.h"
#include "gateway/endpoint/endpoint.h"
#include "gateway/endpoint/identity_cache.h"
#include "gateway/endpoint/reply.h"
#include "gateway/endpoint/throttle.h"
#include "gateway/endpoint/trail.h"
#include "gateway/telemetry/tracer.h"

/* One thing that Datasette is asked for. */
struct fetch_source {
	char *target;
	char pointer[JSON_POINTER_LEN]; /* in the request */
	struct buf before;              /* what the shim is to read before it */
	bool file;        /* … and it is sent in the shim's pieces */
};

/* What Datasette is asked for, one after the other, on its way to the command's files and standard input. */
struct fetch {
	struct exec_job *held;        /* until Datasette has answered: owned, and its lease is ours to give back */
	struct admission_hold hold;   /* so long */
	struct fetch_source *sources;
	size_t count, at;
	struct buf after;             /* what the shim and the command are to read after all of them */
	bool begun;                   /* the command may run: the shim got all files */
	struct exchange *exchange;    /* NULL before, between and after */
	unsigned status;              /* of Datasette's answer; 0 = none yet */
	uint64_t bytes, max;          /* of input, known or read; 0 = no limit */
	struct buf read, out;         /* not sent to the agent: as it came, and as it is sent */
	uint64_t stdin_bytes;         /* of `out` */
	size_t under_way;             /* sent, and no credit for it yet */
	struct call *prev, *next;     /* of endpoint->fetching, while there is an exchange */
};

/* Who is the caller? Asked of Datasette. */
struct inquiry {
	void (*then)(struct call *call); /* when it is known */
	struct exchange *exchange;       /* NULL before and after */
	unsigned status;                 /* of Datasette's answer */
	struct buf body;
	uint64_t deadline_ms;            /* in loop time */
	unsigned char key[IDENTITY_CACHE_KEY];
};

/* Rows on their way into Datasette. */
struct deposit {
	char path[EXEC_MAX_ROWS_PATH + 1]; /* "" = none are */
	struct exec_piece *batches;        /* the first is under way when there is an exchange */
	struct exchange *exchange;
	unsigned status;
	struct buf reply;
	bool failed;         /* nothing is written any more */
};

struct call {
	struct exec_endpoint *endpoint;
	struct http_request *request; /* NULL when it can no longer be answered */
	char exec_id[ID_UUID_LEN + 1];
	struct buf body;
	char boundary[MULTIPART_BOUNDARY_MAX + 1]; /* of a multipart body; "" = it is JSON */
	uint64_t buffered;            /* of endpoint->buffered: the body, then what was read from it, until the agent has that */
	struct slice token;           /* in the request's head */
	bool by_identity;             /* or the caller is who Datasette says it is */
	struct inquiry inquiry;
	struct admission_identity identity;
	struct exec_request *command;
	struct admission_call *admission;
	uint64_t admit_start_us;
	char key[SHA256_HEX + 1], fingerprint[SHA256_HEX + 1]; /* with an idempotency key */
	bool with_agent;
	struct fetch fetch;
	struct deposit deposit;
	/* Of a question about another command: */
	char looked_for[ID_UUID_LEN + 1];
	bool cancels, cancels_again;
	struct slice session;         /* named by the path, which lives as long as the request */
	struct slice asked;           /* … in the words of peek.lua and admit.lua */
	bool asked_ends;
	admission_done asked_done;
	/* Of a streamed answer: */
	enum stream_format format;
	struct exec_piece *pieces;    /* not yet taken by http */
	size_t taken;                 /* bytes that credit is owed for */
	bool streaming, complete;     /* its head has been sent; its last piece is here */
	bool is_mcp;
	struct mcp_request *mcp;      /* of an MCP message, once its token is known to be valid; owned */
	uint64_t sign_due_ms;         /* the next sign of life of a tool, in loop time; 0 = none is wanted */
	bool is_post;                 /* it has an exec id that its answer tells, and the access log */
	struct exec_reply reply;      /* what every answer of this call says */
	struct trail trail;           /* of `command`, when there is an audit */
	struct trace trace;           /* that it belongs to */
	struct log_subject subject;   /* for the log; its exec_id is that of the command it is about, as in the access log */
	struct trace_root root;       /* of its spans, once Redis is asked */
	uint64_t granted_ms;
	/* For the access log. */
	char kid[ADMISSION_KID_LEN + 1];
	char actor[129];
	char policy[65];
	uint64_t policy_version;
	char shadowed[160];
	const char *code, *outcome, *tier;
	struct call *prev, *next;
};

struct exec_endpoint {
	struct exec_endpoint_options options;
	struct admission *admission;
	struct throttle throttle;     /* of wrong tokens */
	struct identity_rules identity_rules;
	struct identity_cache identity_cache;
	struct mailbox mailbox;
	struct call *calls;           /* while the agent has their job */
	size_t jobs_out;
	struct call *fetching;
	struct turn fetch_turn;
	json_t *tools;                /* of the MCP endpoint */
	uint64_t buffered;            /* bytes of all bodies under way or held back */
	uint64_t asked_until_ms;      /* in loop time: until then Redis may still grant what nobody waits for any more */
	bool draining, freeing;
	uint64_t free_deadline_ms;
	uv_timer_t leases_timer, signs_timer;
	int closing;
	void (*on_freed)(void *ctx);
	void *freed_ctx;
};

/* --- call.c --- */

/* Takes a request. */
void call_start(struct exec_endpoint *endpoint, struct http_request *request);

/* For metrics and the audit: how it was decided, why, and with which problem code (NULL = none). */
void call_decide(struct call *call, const char *outcome, const char *reason, const char *code);

/* Every refusal goes through here: a call is answered once. */
void call_refuse(struct call *call, struct exec_problem problem);
void call_drop_body(struct call *call);

/* The agent has answered. */
void call_answer(struct call *call, struct exec_job *job);

/* --- call_look.c: what is known of a command, and its cancellation --- */

/* The answer of an earlier request with the same idempotency key. */
void call_replay(struct call *call, const struct admission_answer *answer);

void call_look(struct call *call, struct slice exec_id, bool cancels);

/* The token's own limits. */
void call_quota(struct call *call);

/* --- call_sessions.c --- */

/* The token's sessions; or the end of one. */
void call_list_sessions(struct call *call);
void call_close_session(struct call *call, struct slice name);

/* --- call_stream.c: a streamed answer, as fast as the client takes it --- */

/* Takes a piece; the first begins the answer. */
void call_piece(struct call *call, struct exec_piece *piece);

/* There are no more pieces. */
void call_end_stream(struct call *call, const struct exec_job *job);

/* Takes the last piece; NULL = there is no memory for it, and the answer is cut. */
void call_end_with(struct call *call, struct exec_piece *last);
void call_on_writable(void *ctx);
void call_drop_pieces(struct call *call);

/* --- call_look.c, for questions about something else than a new command --- */

/* `what`: an exec id, or a word of peek.lua or admit.lua. */
void call_ask(struct call *call, struct slice what, bool ends, admission_done done);
void call_respond(struct call *call, unsigned status, struct slice body);

/* The agent is told to end a command. */
void call_cancel(const struct call *call, const char *exec_id);

/* --- call_mcp.c: the same as tools of the Model Context Protocol --- */

/* Its origin, or the name that it calls us by, may not use the endpoint. */
bool call_mcp_is_foreign(const struct call *call, const struct http_head *head);
void call_mcp(struct call *call, const struct http_head *head);

/* The whole message is here. */
void call_mcp_body(struct call *call);
void call_mcp_free(struct call *call);

/* --- call_signs.c: a tool's answer that is long in coming is a stream with signs of life --- */

void call_signs_begin(struct call *call);

/* The last event, when the stream has begun. */
void call_signs_end(struct call *call, struct exec_job *job);

/* --- call_fetch.c: standard input from Datasette --- */

/* Takes a job: the agent gets it when Datasette has answered with 200, or as killed when there is a mark for it, otherwise the call is
 * refused. `max` bytes are read, 0 = any. */
void call_fetch(struct call *call, struct exec_job *job, uint64_t max);

/* The sandbox has taken so many bytes. */
void call_fetch_credit(struct call *call, size_t bytes);

/* The command has ended, or its client has left. */
void call_fetch_stop(struct call *call);

/* For the metrics: how an exchange with Datasette went; `failure` NULL = in order. */
void call_note_exchange(const struct call *call, const struct exchange *exchange, unsigned status, const struct exchange_failure *failure);

/* The head of a request to Datasette in the caller's name. Results: those of forward_on_behalf. */
MUST_CHECK int call_ask_head(const struct call *call, struct slice method, struct slice target, struct buf *head);

/* --- call_write.c: rows of standard output into Datasette --- */

/* Takes a batch. */
void call_batch(struct call *call, struct exec_piece *piece);

/* No more is written; what is under way may be. */
void call_write_stop(struct call *call);

/* At the end of a turn of the loop: what was read in it goes to the agent. `ctx` is the endpoint. */
void call_fetch_flush(void *ctx);

/* --- call_admit.c: from the head of a POST to a job for the agent --- */

void call_post(struct call *call, const struct http_head *head);

/* Checks the head of a POST and lets its body come. */
void call_read(struct call *call, const struct http_head *head);

#define EXEC_FAULTS_MAX ((size_t)64 * 1024)

/* Of a stream, at most, whatever the token allows. */
uint64_t call_output_max(const struct call *call);

/* The gateway's, or lower ones of the token. */
struct admission_caps call_caps(const struct call *call, const struct admission_answer *answer);

/* After call->command was read; `parsed` is how that went, EXEC_REQUEST_MALFORMED aside. */
void call_admit(struct call *call, int parsed, struct buf *faults);

/* Takes a job; the agent's from now on, or the call was refused. */
void call_send_job(struct call *call, struct exec_job *job);

/* Takes a job of which nothing has run. */
void call_give_back(struct call *call, struct exec_job *job);

/* 0: call->token is set, or by_identity. Otherwise the call was answered. */
MUST_CHECK int call_token(struct call *call, const struct http_head *head);

/* Credentials that are wrong: counted against the client's address, and answered with `problem`, or 429 when they are too many. */
void call_refuse_caller(struct call *call, const char *log_reason, struct exec_problem problem);

/* --- call_identity.c: callers without a token, who are to Datasette somebody that may run commands --- */

/* Are there credentials for Datasette, no token, and rules that say who may? */
bool call_has_identity(const struct call *call, const struct http_head *head);

/* 0: no page of another origin sent it, and its caller is to be identified. Otherwise the call was answered. */
MUST_CHECK int call_check_origin(struct call *call, const struct http_head *head);

/* Goes on with `then`, now or later, once it is known who calls, or answers the call. At once for one with a token. */
void call_identify(struct call *call, void (*then)(struct call *call));
void call_identity_stop(struct call *call);

/* The field that holds the caller's own credentials for Datasette. */
struct slice call_credentials(const struct call *call);

/* The client's, when it is known. */
bool call_address(const struct call *call, unsigned char address[16]);

/* Whose it is, and what the answer tells of the token's limits. */
void call_remember(struct call *call, const struct admission_answer *answer);

/* Everything but a grant. */
void call_refuse_decision(struct call *call, const struct admission_answer *answer);
size_t call_on_body(void *ctx, struct slice bytes);
void call_on_body_end(void *ctx);
