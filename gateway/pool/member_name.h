/*
 * member_name - names of Sprites: sg-<instance>-<gen>-<ulid>, at most 63 characters
 *
 * Everything but the instance has a fixed length, so a name belongs to exactly one instance even where one instance's name is
 * the beginning of another's.
 */
#pragma once

#include "gateway/base/slice.h"
#include "gateway/sprites/provider.h"

#define MEMBER_NAME_INSTANCE_MAX 28
#define MEMBER_NAME_GEN_LEN      4
#define MEMBER_NAME_PREFIX_MAX   (3 + MEMBER_NAME_INSTANCE_MAX + 1)

/*
 * The instance as it stands in names: [a-z0-9-], 1 … 28 characters, no hyphen at either end. A text that had to be changed or
 * shortened ends in a hash of the original, so that two instances never become one. -EINVAL for an empty text.
 */
MUST_CHECK int member_name_instance(char out[MEMBER_NAME_INSTANCE_MAX + 1], struct slice text);

/* Four hexadecimal digits that stand for a preparation recipe. */
void member_name_generation(char out[MEMBER_NAME_GEN_LEN + 1], struct slice recipe);

/* What the names of all instances begin with. */
#define MEMBER_NAME_ALL "sg-"

/* "sg-<instance>-", for listing. */
void member_name_prefix(char out[MEMBER_NAME_PREFIX_MAX + 1], const char *instance);

/* The arguments are those made by the functions above and by id_ulid(). */
void member_name_make(char out[PROVIDER_NAME_MAX + 1], const char *instance, const char *gen, const char *ulid);

/* Does this name say this generation? */
bool member_name_is_of(const char *name, const char *gen);

/* Is this a name that this instance makes, of whatever generation? */
bool member_name_belongs(const char *name, const char *instance);
