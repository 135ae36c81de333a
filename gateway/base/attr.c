#include "gateway/base/attr.h"

#include <stdlib.h>

void free_ptr(void *pointer_to_pointer)
{
	free(*(void **)pointer_to_pointer);
}
