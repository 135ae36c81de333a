/*
 * confine - what the process gives up before it reads a secret (docs/decisions/0018-confined-process.md)
 *
 * No other process of the same user may look into its memory or attach to it, no core dump is written, and nothing that it might be made to
 * start can gain rights.
 *
 * Results: -errno.
 */
#pragma once

#include "gateway/base/attr.h"

MUST_CHECK int confine_self(void);
