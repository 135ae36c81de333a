#include "gateway/pool/state.h"

#define TO(state) (1u << (state))

/* `to`: those that are allowed; `silent`: those of them that are not noted. */
struct state_row {
	const char *name;
	unsigned to, silent;
};

static const struct state_row rows[POOL_STATES] = {
	/* clang-format off */
	[POOL_INTENT]     = {"intent",     TO(POOL_CREATING) | TO(POOL_GONE), 0},
	/* Refused for certain: gone. Answer lost: it may exist, so it is destroyed under its name. */
	[POOL_CREATING]   = {"creating",   TO(POOL_PREPARING) | TO(POOL_QUARANTINE) | TO(POOL_DESTROYING) | TO(POOL_GONE), 0},
	[POOL_PREPARING]  = {"preparing",  TO(POOL_HOT) | TO(POOL_WARM) | TO(POOL_QUARANTINE) | TO(POOL_DESTROYING), 0},
	/* Waking is preparing what was prepared before. In a shared pool both have been recorded before, or it is somebody else's: gone. */
	[POOL_WARM]       = {"warm",       TO(POOL_PREPARING) | TO(POOL_DESTROYING) | TO(POOL_GONE),
					   TO(POOL_PREPARING) | TO(POOL_DESTROYING) | TO(POOL_GONE)},
	[POOL_HOT]        = {"hot",        TO(POOL_LEASED) | TO(POOL_WARM) | TO(POOL_PREPARING) | TO(POOL_DESTROYING), 0},
	/* Back to hot only when it was never handed over: the claim was canceled before its answer went out. Gone: to a session. */
	[POOL_LEASED]     = {"leased",     TO(POOL_HOT) | TO(POOL_RECYCLING) | TO(POOL_DESTROYING) | TO(POOL_GONE), 0},
	/* Restored and found clean, or destroyed. */
	[POOL_RECYCLING]  = {"recycling",  TO(POOL_HOT) | TO(POOL_WARM) | TO(POOL_DESTROYING), 0},
	[POOL_QUARANTINE] = {"quarantine", TO(POOL_PREPARING) | TO(POOL_DESTROYING), 0},
	[POOL_DESTROYING] = {"destroying", TO(POOL_GONE), 0},
	[POOL_GONE]       = {"gone",       0, 0},
	/* clang-format on */
};

const char *pool_state_name(enum pool_state state)
{
	return rows[state].name;
}

bool pool_state_allows(enum pool_state from, enum pool_state to)
{
	return rows[from].to & TO(to);
}

enum state_note pool_state_note(enum pool_state from, enum pool_state to)
{
	if (rows[from].silent & TO(to))
		return STATE_SILENT;
	return to == POOL_GONE ? STATE_FORGET : STATE_NOTE;
}

const char *pool_tier_name(enum pool_tier tier)
{
	static const char *const names[] = {
		[POOL_TIER_HOT] = "hot",
		[POOL_TIER_WARM] = "warm",
		[POOL_TIER_COLD] = "cold",
	};
	return names[tier];
}
