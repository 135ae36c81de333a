#include "gateway/http/request_id.h"

#include <string.h>

static void format(const unsigned char bytes[16], char out[ID_UUID_LEN + 1])
{
	static const char hex[] = "0123456789abcdef";
	for (int i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*out++ = '-';
		*out++ = hex[bytes[i] >> 4];
		*out++ = hex[bytes[i] & 15];
	}
	*out = '\0';
}

int request_id_next(struct request_id_source *source, uint64_t wall_ms, char out[ID_UUID_LEN + 1])
{
	if (!source->left) {
		int r = id_random(source->random, sizeof source->random);
		if (r < 0)
			return r;
		source->left = REQUEST_ID_BATCH;
	}
	unsigned char bytes[16];
	for (int i = 0; i < 6; i++)
		bytes[i] = (unsigned char)(wall_ms >> (40 - 8 * i));
	memcpy(bytes + 6, source->random[--source->left], REQUEST_ID_RANDOM);
	bytes[6] = (unsigned char)(0x70 | (bytes[6] & 0x0f));
	bytes[8] = (unsigned char)(0x80 | (bytes[8] & 0x3f));
	format(bytes, out);
	return 0;
}
