/*
 * sandbox - one prepared Sprite and the channel on which commands run in it, one after another
 *
 * The channel is a control socket (/v1/sprites/{name}/control); on a Sprite without one (404) each command opens /exec instead.
 *
 * Owns:       its channel and the buffers of the running command. Not the Sprite itself: the provider destroys that by name.
 * Lifetime:   made by the provider's prepare, ended by sandbox_close(); after that no callback runs.
 * Runs on:    the agent loop only.
 * Re-entry:   no callback runs inside a call; sandbox_close() may be called from any callback.
 * Results:    SANDBOX_E_BUSY (a command is running), SANDBOX_E_LOST (no channel), SANDBOX_E_TOO_LONG (does not fit the API);
 *             negative = bug or no memory. With any result but 0 nothing was sent.
 * Bounds:     output is passed on in pieces as it comes, other messages have at most 1 MiB; unsent input is what the caller
 *             passed, nothing is copied twice; of input that comes while the command runs 160 KiB wait here at most.
 * Invariants: at most one command at a time; exactly one of on_exit and on_broken ends it; on_exit comes only from an exit frame
 *             (binary frame 3 - sprites contract 3.2), after all output that came before it. After on_broken or on_lost
 *             the channel is gone for good.
 */
#pragma once

#include "gateway/base/log.h"
#include "gateway/base/slice.h"

#define SANDBOX_E_BUSY     1
#define SANDBOX_E_LOST     2
#define SANDBOX_E_TOO_LONG 3

/* Arguments that have no more than this many bytes as JSON strings with their commas fit a control socket (with a program's name below
 * 500 bytes). */
#define SANDBOX_ARGS_MAX ((size_t)511 * 1024)
/* /exec, the way of a Sprite without one, takes this much of them percent-encoded. */
#define SANDBOX_EXEC_ARGS_MAX ((size_t)36 * 1024)

struct sandbox;

enum sandbox_stream { SANDBOX_STDOUT, SANDBOX_STDERR };

/* How far a broken command came, as far as is known for certain. */
enum sandbox_doubt {
	SANDBOX_NOT_STARTED,  /* nothing that could start it was ever handed to the network, or the server refused it */
	SANDBOX_MAY_HAVE_RUN, /* anything else */
};

struct sandbox_events {
	/* Bytes are valid during the call. */
	void (*on_output)(void *ctx, enum sandbox_stream stream, struct slice bytes);
	/* The command's own status, 0..255. The sandbox is free for the next command when this returns. */
	void (*on_exit)(void *ctx, unsigned exit_code);
	/* Of a command with more_input: sandbox_feed() may take more than it did, or the command has turned out to have started. */
	void (*on_input)(void *ctx);
	/* The channel broke, or the server refused or contradicted itself. `reason` is a plain sentence, valid during the call. */
	void (*on_broken)(void *ctx, enum sandbox_doubt doubt, const char *reason);
};

struct sandbox_command {
	/* Program and arguments, run without a shell, with the Sprite's default environment and user. Copied. */
	const char *const *argv;
	size_t argc;
	/* Sent as standard input, then EOF. Borrowed: valid until on_exit or on_broken. */
	struct slice input;
	/* The same for the shim that was started ahead, in place of arguments and input. Empty = it is not for it. Borrowed, too. */
	struct slice input_ahead;
	/* EOF comes only by sandbox_end_input(), after what sandbox_feed() brings. */
	bool more_input;
	/* For lines of the log that are about it. NULL = none. Copied. */
	const struct log_subject *subject;
};

/* Starts a command. `events` and the input must stay valid until it has ended. */
MUST_CHECK int sandbox_run(struct sandbox *sandbox, const struct sandbox_command *command, const struct sandbox_events *events, void *ctx);

/* More of the standard input of a command with more_input: how many bytes were taken (copied). Fewer than bytes.len: on_input follows. */
MUST_CHECK size_t sandbox_feed(struct sandbox *sandbox, struct slice bytes);
void sandbox_end_input(struct sandbox *sandbox);

/* Sends a signal to the running command: "TERM" or "KILL". SANDBOX_E_LOST when none is running. */
MUST_CHECK int sandbox_signal(struct sandbox *sandbox, const char *signal);

/* Whether the running command is known to have started: the server has said so, or, of one for which the shim had waited, it has printed
 * something. */
bool sandbox_has_started(const struct sandbox *sandbox);

/* Back pressure: while paused no output is read from the socket (and on_exit waits). */
void sandbox_pause(struct sandbox *sandbox);
void sandbox_resume(struct sandbox *sandbox);

/* Whether the Sprite has the shim, which starts commands and records what they print (sprites/record.h). The provider knows. */
void sandbox_set_shim(struct sandbox *sandbox, bool shim);
bool sandbox_has_shim(const struct sandbox *sandbox);

/* From now on, and until the first sandbox_run(), the shim waits in the Sprite for its command (sprites/record.h): that one then costs no start of
 * a process. Only if the options say so, there is a shim and a control socket. */
void sandbox_start_ahead(struct sandbox *sandbox);

/* Called once when the channel of an idle sandbox is lost (the Sprite paused, the network cut it). */
void sandbox_on_lost(struct sandbox *sandbox, void (*on_lost)(void *ctx, const char *reason), void *ctx);

/* The Sprite's name; valid until sandbox_close(). */
const char *sandbox_name(const struct sandbox *sandbox);

/* Ends the channel at once; a running command gets no further callback. NULL is allowed. */
void sandbox_close(struct sandbox *sandbox);
