/*
 * redact - finds tokens of this gateway in text that others wrote
 *
 * A token is sgt_<kid:16>_<secret and checksum:38>, all of 0-9A-Za-z. The kid is public.
 */
#pragma once

#include "gateway/base/slice.h"

/* The first secret in `text`, whole or cut short, as a part of it; everything up to it may be shown. Empty when there is none. */
struct slice redact_find(struct slice text);

/* Does a field that carries credentials hold a token, or what was meant to be one: sgt_ where a word begins? */
bool redact_has_token(struct slice credentials);
