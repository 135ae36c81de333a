#include "gateway/http/peer.h"

#include <arpa/inet.h>
#include <errno.h>

/* IPv4 as an IPv4-mapped IPv6 address, so that both families compare alike. */
static bool parse_address(struct slice text, unsigned char out[16], bool *v4)
{
	char copy[INET6_ADDRSTRLEN];
	if (text.len >= sizeof copy)
		return false;
	memcpy(copy, text.len ? text.data : "", text.len);
	copy[text.len] = '\0';
	static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
	memcpy(out, mapped, sizeof mapped);
	*v4 = inet_pton(AF_INET, copy, out + 12) == 1;
	return *v4 || inet_pton(AF_INET6, copy, out) == 1;
}

static int parse_network(struct slice text, struct peer_network *network)
{
	const char *slash = memchr(text.data, '/', text.len);
	size_t len = slash ? (size_t)(slash - text.data) : text.len;
	bool v4;
	if (!parse_address(slice_of(text.data, len), network->bytes, &v4))
		return -EINVAL;
	uint64_t prefix = v4 ? 32 : 128;
	if (slash && slice_to_u64(slice_from(text, len + 1), prefix, &prefix) != 0)
		return -EINVAL;
	network->prefix = (unsigned)prefix + (v4 ? 96 : 0);
	return 0;
}

int peer_set_parse(struct slice text, struct peer_set *set)
{
	struct slice part;
	set->count = 0;
	while (slice_next(&text, ',', &part)) {
		part = slice_trim(part);
		if (!part.len)
			continue;
		if (set->count == PEER_SET_MAX)
			return -E2BIG;
		int r = parse_network(part, &set->at[set->count]);
		if (r < 0)
			return r;
		set->count++;
	}
	return 0;
}

static bool in_network(const struct peer_network *network, const unsigned char address[16])
{
	unsigned whole = network->prefix / 8, bits = network->prefix % 8;
	if (memcmp(network->bytes, address, whole) != 0)
		return false;
	return !bits || ((network->bytes[whole] ^ address[whole]) >> (8 - bits)) == 0;
}

bool peer_set_has(const struct peer_set *set, struct slice address)
{
	unsigned char bytes[16];
	bool v4;
	if (!set->count || !parse_address(address, bytes, &v4))
		return false;
	for (size_t i = 0; i < set->count; i++)
		if (in_network(&set->at[i], bytes))
			return true;
	return false;
}

bool peer_parse(struct slice text, unsigned char address[16])
{
	bool v4;
	return parse_address(text, address, &v4);
}

bool peer_is_address(struct slice text)
{
	unsigned char bytes[16];
	return peer_parse(text, bytes);
}

void peer_network_of(const unsigned char address[16], unsigned char network[16])
{
	static const unsigned char v4[12] = {[10] = 0xff, [11] = 0xff};
	memcpy(network, address, 16);
	if (memcmp(address, v4, sizeof v4) != 0)
		memset(network + 8, 0, 8);
}
