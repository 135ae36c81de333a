/*
 * verdict - what the admission script answered, as the caller wants it
 *
 * Pure; knows the order of the array that scripts/admit.lua and peek.lua return.
 */
#pragma once

#include "policy/admission.h"

struct redisReply;

/* Fills everything but lease.id, lease.kid and kid. *reaped is the number of leases that ended unsettled.
 * -EPROTO for anything the script does not return: the answer is then to be "unavailable". */
MUST_CHECK int verdict_read(const struct redisReply *reply, struct admission_answer *answer, uint64_t *reaped);
