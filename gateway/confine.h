/*
 * confine - what the process gives up (docs/decisions/0018-confined-process.md)
 *
 * Results: -errno.
 */
#pragma once

#include "gateway/base/attr.h"

/* Before it reads a secret: no other process of the same user may look into its memory or attach to it, no core dump is written, and
 * nothing that it might be made to start can gain rights. */
MUST_CHECK int confine_self(void);

/* When what takes them is done (addresses that only root may have, limits): all capabilities of the calling thread and of those it starts.
 * Of root's rights it keeps what root owns. */
MUST_CHECK int confine_rights(void);

/* Before there is a loop (libuv would have calls made by an io_uring, where no filter sees them), after the other two, for all threads and
 * for good: the system calls that serving needs, and no others. What starts programs, looks into other processes or changes rights is EPERM;
 * everything else looks as if the kernel did not have it (ENOSYS), which libraries know how to do without. A call of another architecture
 * ends the process. */
MUST_CHECK int confine_calls(void);
