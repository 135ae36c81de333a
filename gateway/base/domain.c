#include "gateway/base/domain.h"

#define LABEL_MAX    63
#define NAME_LEN_MAX 253

static bool is_label(struct slice label)
{
	if (!label.len || label.len > LABEL_MAX || label.data[0] == '-' || label.data[label.len - 1] == '-')
		return false;
	for (size_t i = 0; i < label.len; i++) {
		char c = label.data[i];
		if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-')
			return false;
	}
	return true;
}

bool domain_is_pattern(struct slice text)
{
	struct slice rest = slice_has_prefix(text, SLICE("*.")) ? slice_from(text, 2) : text, label;
	size_t labels = 0;
	if (!rest.len || rest.len > NAME_LEN_MAX || rest.data[rest.len - 1] == '.')
		return false;
	for (; rest.len; labels++)
		if (!slice_next(&rest, '.', &label) || !is_label(label))
			return false;
	return labels > 1;
}
