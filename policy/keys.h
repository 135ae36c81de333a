/*
 * keys - the names of our keys in Redis
 *
 * The constant hash tag {g} keeps them in one slot of a cluster, so that one script may touch token, actor and budget together.
 * The Lua scripts use the same names.
 */
#pragma once

#define KEY_PREFIX       "sg:{g}:"
#define KEY_RECORD       KEY_PREFIX "k:"         /* + kid: the token's record (record.h) */
#define KEY_POLICY       KEY_PREFIX "p:"         /* + name: rules that tokens inherit */
#define KEY_POLICY_PAST  KEY_PREFIX "pv:"        /* + name:version: every version there has been */
#define KEY_LEASES       KEY_PREFIX "c:"         /* + kid: running commands */
#define KEY_ACTOR_LEASES KEY_PREFIX "ac:"        /* + actor: the same of all its tokens */
#define KEY_BUDGET       KEY_PREFIX "b:"         /* + kid:yyyymmdd: what was used that day */
#define KEY_IDEMPOTENCY  KEY_PREFIX "i:"         /* + kid:digest of an idempotency key: of which body, and the id of its command */
#define KEY_RESULT       KEY_PREFIX "x:"         /* + id of a command: whose it was, and what it ended with */
#define KEY_RESULTS      KEY_PREFIX "xs"         /* all of them, the oldest first */
#define KEY_RESULT_BYTES KEY_PREFIX "xb"         /* their sizes added up */
#define KEY_ACTOR_INDEX  KEY_PREFIX "ix:actor:"  /* + actor: its kids */
#define KEY_BOOKED       KEY_PREFIX "d:"         /* + lease that only a gateway knew of: it is booked */
#define KEY_KILL         KEY_PREFIX "kill:"      /* + kid or lease: what runs under it is to end; its value is that name again … */
#define KILL_STOP        "stop:"                 /* … after this when TERM comes first */
#define KEY_KILL_BY      KEY_PREFIX "by:"        /* + kid or lease that is marked so: that name, a blank, and who left the mark */
#define KEY_AUDIT        KEY_PREFIX "audit"      /* what operators did */
#define KEY_EVENTS       KEY_PREFIX "ev"         /* channel: "revoke <kid>" */
#define KEY_SESSIONS     KEY_PREFIX "s:"         /* + kid: its sessions, by name */
#define KEY_SESSION_ENDS KEY_PREFIX "ss"         /* Sprites of sessions, by when they end */
#define KEY_SESSION_OF   KEY_PREFIX "sn"         /* Sprite -> whose it is (scripts/session.lua) */
#define KEY_POOL         KEY_PREFIX "pool:"      /* + pool: + …: the records of a shared pool (scripts/pool.lua) */
