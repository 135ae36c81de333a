#include "gateway/confine.h"

#include <errno.h>
#include <sys/prctl.h>
#include <sys/resource.h>

int confine_self(void)
{
	const struct rlimit none = {0};
	if (setrlimit(RLIMIT_CORE, &none) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return 0;
}
