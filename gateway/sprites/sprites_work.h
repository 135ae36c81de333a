/*
 * sprites_work - one operation of the pool under way, which sprites_provider.c begins and sprites_prepare.c carries through; nobody else
 * includes it
 *
 * Owns:       its copy of the name, the sandbox until it is handed over, its timers.
 * Lifetime:   work_new … work_tell or work_free; a REST call that is still out keeps it, unheard.
 * Re-entry:   `done` runs last in work_tell(), and may free the provider.
 * Order:      what changes a Sprite, preparing it and opening its network, is done one after the other: the next one begins when no call of the
 *             one before can take effect any more. Destroying does not wait.
 */
#pragma once

#include "gateway/sprites/baselines.h"
#include "gateway/sprites/client.h"
#include "gateway/sprites/preparation.h"
#include "gateway/sprites/sandbox_dial.h"
#include "gateway/sprites/sprites_provider.h"

struct sprites_provider {
	struct sprites_provider_options options;
	uv_loop_t *loop;
	struct secret token;
	char *ws_url;
	struct client *client;
	struct sandbox_options sandbox_options;
	struct baselines baselines;
	struct work *works;
};

/* One operation of the pool under way. */
struct work {
	struct work *next, **link;
	struct sprites_provider *provider;
	char name[PROVIDER_NAME_MAX + 1];
	provider_done done; /* NULL: nobody waits for it */
	provider_found found;
	void *ctx;
	struct verdict verdict; /* the last one */
	struct log_subject subject; /* of a signal: the command */
	/* destroy, and the confirmation of an absence */
	bool listed;
	/* prepare */
	struct preparation preparation;
	struct provider_fence fence;
	struct sandbox *sandbox;
	char said[BASELINES_MARK]; /* by the command of a step */
	size_t said_len;
	bool again;            /* the shim is brought a second time */
	char *policy;          /* of open_network */
	unsigned control_404s; /* of the API in front of the Sprite */
	bool told;             /* `done` has run: only a REST call is still out */
	bool calling;          /* … and will come back to us */
	bool waiting;          /* for its turn */
	uv_timer_cb on_turn;
	uv_timer_t pause;      /* its turn, the next attempt, or the end of the first command */
	uv_timer_t timeout;    /* of all of it */
	unsigned handles;      /* of what changes a Sprite; else 0 */
};

bool work_valid_name(const char *name);

struct work *work_new(struct sprites_provider *provider, const char *name, provider_done done, void *ctx);
void work_free(struct work *work);

/* Gives the work up when the call could not be made. */
int work_started(struct work *work, int r);

/* Of what changes a Sprite. True: it may begin now. Else on_turn runs when it is its turn, unless timeout_ms end before. */
MUST_CHECK bool work_take_turn(struct work *work, uv_timer_cb on_turn, uint64_t timeout_ms);

/* Tells the pool, once. The work lives on while a REST call is out. */
void work_tell(struct work *work, enum provider_code code);
void work_fail(struct work *work, const char *detail, uint64_t retry_after_ms);

/* Is it really gone? The second witness; `done` gets PROVIDER_OK or why the list cannot tell. */
MUST_CHECK int work_ask_list(struct work *work, client_done done);

/* Prepares, wakes, resumes or restores. */
MUST_CHECK int work_prepare(struct sprites_provider *provider, enum preparation_kind kind, const char *name, struct provider_fence fence,
			    provider_done done, void *ctx);

/* Ends what work_prepare() began, soon. */
void work_abandon(struct work *work);
