#include "gateway/datasette/turn.h"

static void on_check(uv_check_t *check)
{
	struct turn *turn = check->data;
	if (!turn->asked)
		return;
	turn->asked = false;
	turn->run(turn->ctx);
	if (!turn->asked)
		uv_idle_stop(&turn->idle);
}

static void on_idle(uv_idle_t *idle UNUSED)
{
}

void turn_init(struct turn *turn, uv_loop_t *loop, void (*run)(void *ctx), void *ctx)
{
	*turn = (struct turn){.run = run, .ctx = ctx, .open = 2};
	uv_check_init(loop, &turn->check);
	uv_idle_init(loop, &turn->idle);
	turn->check.data = turn->idle.data = turn;
	uv_check_start(&turn->check, on_check);
}

void turn_ask(struct turn *turn)
{
	if (turn->asked || turn->on_closed)
		return;
	turn->asked = true;
	uv_idle_start(&turn->idle, on_idle);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct turn *turn = handle->data;
	if (--turn->open == 0)
		turn->on_closed(turn->ctx);
}

void turn_close(struct turn *turn, void (*on_closed)(void *ctx))
{
	turn->on_closed = on_closed;
	uv_close((uv_handle_t *)&turn->check, on_handle_closed);
	uv_close((uv_handle_t *)&turn->idle, on_handle_closed);
}
