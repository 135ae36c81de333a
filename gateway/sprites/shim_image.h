/* shim_image - the program that starts commands inside a Sprite (gateway/shim), as it is sent there; made by cmake/shim.cmake */
#pragma once

#include <stddef.h>

struct shim_image {
	const unsigned char *bytes;
	size_t len;
	const char *sha256;
};

extern const struct shim_image shim_image;
