#include "policy/token.h"

#include "gateway/base/id.h"

#include <string.h>

#define PREFIX     "sgt_"
#define PREFIX_LEN (sizeof PREFIX - 1)
#define SECRET_AT  (PREFIX_LEN + TOKEN_KID_LEN + 1)
#define SIGNED_LEN (TOKEN_LEN - TOKEN_CHECKSUM_LEN)

/* The reflected polynomial of IEEE 802.3, as in zlib: what token scanners compute. Four bits at a time. */
static uint32_t crc32_of(const char *text, size_t len)
{
	static const uint32_t of[16] = {
		0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4, 0x4DB26158, 0x5005713C,
		0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C, 0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C,
	};
	uint32_t crc = 0xFFFFFFFFu;
	for (size_t i = 0; i < len; i++) {
		crc ^= (unsigned char)text[i];
		crc = (crc >> 4) ^ of[crc & 15];
		crc = (crc >> 4) ^ of[crc & 15];
	}
	return ~crc;
}

static void write_checksum(const char *text, char out[TOKEN_CHECKSUM_LEN])
{
	static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
	uint32_t rest = crc32_of(text, SIGNED_LEN);
	for (int i = TOKEN_CHECKSUM_LEN - 1; i >= 0; i--) {
		out[i] = digits[rest % 62];
		rest /= 62;
	}
}

static bool is_base62(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		char c = text[i];
		if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')))
			return false;
	}
	return true;
}

bool token_kid_is_valid(struct slice kid)
{
	return kid.len == TOKEN_KID_LEN && is_base62(kid.data, kid.len);
}

bool token_kid_or_identity(struct slice kid)
{
	bool marked = kid.len == TOKEN_KID_LEN && kid.data[0] == TOKEN_IDENTITY_MARK;
	return marked ? is_base62(kid.data + 1, kid.len - 1) : token_kid_is_valid(kid);
}

int token_parse(struct slice text, struct token_parts *parts)
{
	if (text.len != TOKEN_LEN || memcmp(text.data, PREFIX, PREFIX_LEN) != 0 || text.data[SECRET_AT - 1] != '_')
		return TOKEN_E_FORM;
	if (!is_base62(text.data + PREFIX_LEN, TOKEN_KID_LEN) || !is_base62(text.data + SECRET_AT, TOKEN_LEN - SECRET_AT))
		return TOKEN_E_FORM;
	char want[TOKEN_CHECKSUM_LEN];
	write_checksum(text.data, want);
	if (memcmp(want, text.data + SIGNED_LEN, TOKEN_CHECKSUM_LEN) != 0)
		return TOKEN_E_CHECKSUM;
	parts->kid = slice_of(text.data + PREFIX_LEN, TOKEN_KID_LEN);
	parts->secret = slice_of(text.data + SECRET_AT, TOKEN_SECRET_LEN);
	return 0;
}

int token_mint(char out[TOKEN_LEN + 1])
{
	char kid[TOKEN_KID_LEN + 1];
	int r = id_base62(kid, TOKEN_KID_LEN);
	return r < 0 ? r : token_mint_for(slice_of(kid, TOKEN_KID_LEN), out);
}

int token_mint_for(struct slice kid, char out[TOKEN_LEN + 1])
{
	memcpy(out, PREFIX, PREFIX_LEN);
	memcpy(out + PREFIX_LEN, kid.data, TOKEN_KID_LEN);
	out[SECRET_AT - 1] = '_';
	int r = id_base62(out + SECRET_AT, TOKEN_SECRET_LEN);
	if (r < 0)
		return r;
	write_checksum(out, out + SIGNED_LEN);
	out[TOKEN_LEN] = '\0';
	return 0;
}

int token_mac(const struct secret *pepper, struct slice secret, char out[TOKEN_MAC_LEN + 1])
{
	unsigned char mac[HMAC_BYTES];
	int r = hmac_sha256(secret_peek(pepper), secret, mac);
	if (r < 0)
		return r;
	hex_encode(mac, sizeof mac, out);
	secret_wipe(mac, sizeof mac);
	return 0;
}

int token_pepper_id(const struct secret *pepper, char out[TOKEN_PEPPER_ID_LEN + 1])
{
	unsigned char mac[HMAC_BYTES];
	int r = hmac_sha256(secret_peek(pepper), SLICE("spritegate pepper id"), mac);
	if (r < 0)
		return r;
	hex_encode(mac, TOKEN_PEPPER_ID_LEN / 2, out);
	return 0;
}
