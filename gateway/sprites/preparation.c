#include "gateway/sprites/preparation.h"

#define PAUSE_US     100000u
#define PAUSE_MAX_US 2000000u
#define MISSING_MAX  3

#define STEPS_MAX 7

static const enum preparation_step plans[][STEPS_MAX] = {
	[PREPARATION_NEW] = {PREPARATION_CLOSE_NETWORK, PREPARATION_CHECK_NETWORK, PREPARATION_DIAL, PREPARATION_RUN},
	[PREPARATION_RESTORABLE] = {PREPARATION_CLOSE_NETWORK, PREPARATION_CHECK_NETWORK, PREPARATION_DIAL, PREPARATION_RUN,
				    PREPARATION_CHECKPOINT, PREPARATION_MARK},
	[PREPARATION_WAKE] = {PREPARATION_CHECK_NETWORK, PREPARATION_DIAL, PREPARATION_RUN},
	[PREPARATION_RESTORED] = {PREPARATION_RESTORE, PREPARATION_CHECK_NETWORK, PREPARATION_DIAL, PREPARATION_MARK},
};

void preparation_init(struct preparation *preparation, enum preparation_kind kind, uint64_t budget_us, uint64_t now_us)
{
	*preparation = (struct preparation){.kind = kind, .step = plans[kind][0], .ends_us = now_us + budget_us};
}

static struct preparation_action finish(enum provider_code code)
{
	return (struct preparation_action){.kind = PREPARATION_FINISH, .code = code};
}

static enum preparation_step after(const struct preparation *preparation)
{
	const enum preparation_step *plan = plans[preparation->kind];
	/* The list has it, so the 404s were false: from the start. */
	if (preparation->step == PREPARATION_CONFIRM)
		return plan[0];
	if (preparation->step == PREPARATION_CHECK_TAKEN)
		return PREPARATION_LABEL_TAKEN;
	if (preparation->step == PREPARATION_LABEL_TAKEN)
		return PREPARATION_END;
	while (*plan != preparation->step)
		plan++;
	return plan[1] == PREPARATION_END && preparation->fenced ? PREPARATION_CHECK_TAKEN : plan[1];
}

static struct preparation_action next(struct preparation *preparation)
{
	preparation->failures = preparation->missing = 0;
	preparation->step = after(preparation);
	if (preparation->step == PREPARATION_END)
		return finish(PROVIDER_OK);
	return (struct preparation_action){.kind = PREPARATION_DO};
}

/* 0.1, 0.2, 0.4 … 2 s, or what was asked for if that is longer; up to a second more. */
static uint64_t pause_us(unsigned failures, uint64_t hint_us, uint32_t random)
{
	uint64_t pause = failures < 6 ? (uint64_t)PAUSE_US << (failures - 1) : PAUSE_MAX_US;
	if (pause > PAUSE_MAX_US)
		pause = PAUSE_MAX_US;
	uint64_t spread = pause / 2 * (random % 1024) / 1024;
	return (pause < hint_us ? hint_us : pause) + spread;
}

static struct preparation_action again(struct preparation *preparation, const struct verdict *verdict, uint64_t now_us, uint32_t random)
{
	uint64_t wait_us = pause_us(++preparation->failures, verdict->retry_after_ms * 1000, random);
	if (now_us + wait_us >= preparation->ends_us)
		return finish(verdict->code == PROVIDER_GONE ? PROVIDER_UNAVAILABLE : verdict->code);
	/* A channel that was lost under a command has to be dialled again. */
	if (preparation->step == PREPARATION_RUN || preparation->step == PREPARATION_MARK)
		preparation->step = PREPARATION_DIAL;
	return (struct preparation_action){.kind = PREPARATION_WAIT, .wait_us = wait_us};
}

static struct preparation_action missing(struct preparation *preparation, const struct verdict *verdict, uint64_t now_us, uint32_t random)
{
	if (preparation->step == PREPARATION_CONFIRM)
		return finish(PROVIDER_GONE);
	if (++preparation->missing < MISSING_MAX)
		return again(preparation, verdict, now_us, random);
	preparation->step = PREPARATION_CONFIRM;
	return (struct preparation_action){.kind = PREPARATION_DO};
}

struct preparation_action preparation_step(struct preparation *preparation, const struct verdict *verdict, uint64_t now_us, uint32_t random)
{
	if (verdict->code == PROVIDER_OK)
		return next(preparation);
	if (verdict->code == PROVIDER_GONE)
		return missing(preparation, verdict, now_us, random);
	preparation->missing = 0;
	/* A restore whose end was not seen is in doubt. */
	if (verdict->not_ready && (preparation->step != PREPARATION_RESTORE || verdict->status))
		return again(preparation, verdict, now_us, random);
	/* A network that cannot be closed, whatever the reason the API gives. */
	bool network = preparation->step == PREPARATION_CLOSE_NETWORK || preparation->step == PREPARATION_CHECK_NETWORK;
	return finish(network && verdict->code == PROVIDER_INVALID ? PROVIDER_POLICY : verdict->code);
}
