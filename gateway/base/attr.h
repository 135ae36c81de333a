/*
 * attr - compiler attributes and result conventions used everywhere
 *
 * Results: 0 = done; negative (-errno) = broken or out of memory, the caller gives up what it was doing;
 *          positive = an outcome named in the header that the caller must handle.
 */
#pragma once

#include <stddef.h>

#define MUST_CHECK      __attribute__((warn_unused_result))
#define PRINTF(fmt, va) __attribute__((format(printf, fmt, va)))
#define CLEANUP(fn)     __attribute__((cleanup(fn)))
#define UNUSED          __attribute__((unused))

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

/* Moves ownership out of a local that has CLEANUP(): gives its value and nulls it. */
#define TAKE(ptr)                               \
	({                                      \
		__typeof__(ptr) taken_ = (ptr); \
		(ptr) = NULL;                   \
		taken_;                         \
	})

/* Scope clean-up for plain heap memory: `CLEANUP(free_ptr) char *text = …`. */
void free_ptr(void *pointer_to_pointer);
