/*
 * sandbox_dial - how the provider makes a sandbox: opens its channel
 *
 * See sandbox.h for what a sandbox is and who owns it. The options, the token and the driver behind them outlive every
 * sandbox.
 */
#pragma once

#include "gateway/sprites/sandbox.h"
#include "gateway/sprites/socket.h"

struct sandbox_options {
	struct socket_options socket;
	const char *ws_url;            /* "wss://api.sprites.dev", no slash at the end */
	unsigned keepalive_ms;         /* an idle sandbox runs `true` this long after the last command; 0 = never */
	bool ahead;      /* sandbox_start_ahead() does what it says */
	unsigned keepalive_timeout_ms; /* … which must exit within this time */
	unsigned complete_timeout_ms;  /* from the exit frame to op.complete */
	/* Signals a session by another way than its socket, where the signal would wait behind input that the command does not
	 * read. Called from sandbox_signal(); 0 or -errno. */
	int (*kill)(void *ctx, const char *name, const char *session, const char *signal, const struct log_subject *subject);
	void *kill_ctx;
};

/* The channel stands (refusal NULL, the sandbox may be used) or not (it may only be closed). Runs once, unless
 * sandbox_close() came first. */
typedef void (*sandbox_dialled)(void *ctx, struct sandbox *sandbox, const struct socket_refusal *refusal);

/* 0, -ENOMEM or -EIO. A Sprite that has no /control (404) gets a sandbox that opens /exec for each command. Only the Sprite's own 404
 * proves that; one of the API in front of it may be false, so it is a refusal unless `believe_404`. */
MUST_CHECK int sandbox_dial(const struct sandbox_options *options, const char *name, bool believe_404, sandbox_dialled done, void *ctx,
			    struct sandbox **sandbox);

/* The version that the Sprite said when it was dialled; "" = none. */
const char *sandbox_version(const struct sandbox *sandbox);

/* True for a sandbox without a control socket. */
bool sandbox_uses_exec(const struct sandbox *sandbox);
