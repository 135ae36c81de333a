/*
 * sandbox_parts - what the files of a sandbox share; nobody else includes it
 *
 *   sandbox        its channel: what it says, and its end
 *   sandbox_start  commands: of users, and its own between them
 *   sandbox_feed   what a running command is given: input, signals, and time to be read
 */
#pragma once

#include "gateway/sprites/handshake.h"
#include "gateway/sprites/operation.h"
#include "gateway/sprites/sandbox_dial.h"

#include <uv.h>

#define SANDBOX_SIGNAL_LEN   16
#define SANDBOX_SESSION_LEN  128
#define SANDBOX_PIPE_BYTES   65536 /* what a pipe of Linux takes though nobody reads it */
#define SANDBOX_REASON_BYTES 512

/* A command with everything needed to start it later. */
struct sandbox_job {
	bool set;
	bool probe;         /* our keepalive, not the user's */
	bool ahead;         /* … which waits for the user's command, until its input ends */
	struct buf start;   /* the op.start message, or the URL of its /exec */
	struct slice input; /* what is left of it */
	struct slice input_ahead;
	bool input_ended;
	bool more_input;         /* the end of `input` is not that of the command's input */
	bool may_block;          /* more input than a pipe takes: it may stand between a signal and the command */
	char signal[SANDBOX_SIGNAL_LEN]; /* asked for before the command was started; "" = none */
	const struct sandbox_events *events;
	void *ctx;
	uint64_t ticket; /* its op.start in the socket's count of messages */
	struct log_subject subject;
};

struct sandbox {
	struct sandbox_options options;
	char *name;
	char version[HANDSHAKE_VERSION_MAX + 1];
	char *base; /* "wss://…/v1/sprites/{name}" */
	bool use_exec, dialling, believe_404, closed;
	bool shim;
	bool ahead;  /* the shim shall wait for the first command */
	bool gone;   /* no channel any more, for good */
	bool lost;   /* … and on_lost is due */
	bool paused; /* by the user, for the user's command */
	struct socket *socket;
	struct frames frames;
	struct operation operation;
	struct sandbox_job running, waiting;
	char session[SANDBOX_SESSION_LEN]; /* of the running command; "" = not known */
	sandbox_dialled dialled;
	void *dialled_ctx;
	void (*on_lost)(void *ctx, const char *reason);
	void *on_lost_ctx;
	char reason[SANDBOX_REASON_BYTES];
	uv_timer_t deadline; /* of op.complete or of the keepalive */
	uv_timer_t later;    /* the next keepalive, or a loss to be told outside of a call */
	unsigned handles;
};

/* --- sandbox --- */

extern const struct socket_events sandbox_socket_events;

/* Whoever waits is told; when nobody does, an idle sandbox was lost. */
void sandbox_give_up(struct sandbox *sandbox, enum sandbox_doubt doubt, const char *reason);
void sandbox_give_up_later(struct sandbox *sandbox, const char *reason);
void sandbox_tell_loss(struct sandbox *sandbox);

/* --- sandbox_start --- */

void sandbox_job_deinit(struct sandbox_job *job);

/* Emptied before its callback runs, so that the callback may start the next one. */
struct sandbox_job sandbox_job_take(struct sandbox_job *job);

/* The message waits in the socket's queue until libcurl takes its first byte. */
void sandbox_note_handed(struct sandbox *sandbox);

/* Called whenever a command has ended or the channel has opened. */
void sandbox_rest(struct sandbox *sandbox);

/* The shim was started ahead, and was told neither a command nor its end. */
bool sandbox_shim_waits(const struct sandbox *sandbox);

/* One that waits has started: it is given its command, or told after a while that there is none, which shows that the Sprite is well. */
void sandbox_ahead_waits(struct sandbox *sandbox);
void sandbox_end_ahead(struct sandbox *sandbox);
void sandbox_on_later(uv_timer_t *timer);

/* --- sandbox_feed --- */

void sandbox_pump_input(struct sandbox *sandbox);
void sandbox_ask_for_input(struct sandbox *sandbox);

/* Input, and the signal that was asked for before. */
void sandbox_feed_command(struct sandbox *sandbox);
void sandbox_apply_pause(struct sandbox *sandbox);
