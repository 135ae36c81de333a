/*
 * answer_head - the fields of an answer between the one who gives it and the wire
 *
 * libmicrohttpd takes an answer's fields one by one, with three allocations for each. So they are kept here as the text that they are on
 * the wire, and what may go there as it stands is handed over in as few parts as their order allows. Only a field by which libmicrohttpd
 * itself decides what to do is a part of its own.
 *
 * Results:    0, -EINVAL for what is no field, -ENOMEM, -EMSGSIZE.
 * Invariants: no part holds a byte that http_is_token or http_is_value would refuse, but for the line ends between its fields.
 */
#pragma once

#include "gateway/base/buf.h"
#include "gateway/http/headers.h"

/* On the wire "name: value" and a line end: one field, or several with line ends in `value`. */
struct answer_part {
	struct slice name, value;
	bool own; /* one that libmicrohttpd has to know of; both are followed by a NUL */
};

MUST_CHECK int answer_head_add(struct buf *head, struct slice name, struct slice value);
/* Takes the next part from what is left of a head; false at its end. Valid as long as the head. */
bool answer_head_next(struct slice *rest, struct answer_part *part);
