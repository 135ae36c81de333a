#include "gateway/sprites/outbox.h"

#include <errno.h>
#include <stdlib.h>

struct outbox_message {
	struct outbox_message *next;
	enum outbox_kind kind;
	size_t len, sent;
	char bytes[];
};

void outbox_init(struct outbox *outbox, size_t max)
{
	*outbox = (struct outbox){.max = max};
	outbox->tail = &outbox->head;
}

void outbox_drop(struct outbox *outbox)
{
	while (outbox->head) {
		struct outbox_message *message = outbox->head;
		outbox->head = message->next;
		outbox->bytes -= message->len;
		free(message);
	}
	outbox->tail = &outbox->head;
}

void outbox_deinit(struct outbox *outbox)
{
	outbox_drop(outbox);
	free(outbox->current);
	free(outbox->ping);
	free(outbox->pong);
	struct outbox empty = {.max = outbox->max, .pushed = outbox->pushed, .handed = outbox->handed};
	*outbox = empty;
	outbox->tail = &outbox->head;
}

static bool is_control(enum outbox_kind kind)
{
	return kind == OUTBOX_PING || kind == OUTBOX_PONG;
}

static void replace(struct outbox_message **slot, struct outbox_message *message)
{
	free(*slot);
	*slot = message;
}

int outbox_push(struct outbox *outbox, enum outbox_kind kind, struct slice first, struct slice second)
{
	size_t len = first.len + second.len;
	if (is_control(kind) && len > OUTBOX_CONTROL_MAX)
		return -EMSGSIZE;
	if (!is_control(kind) && outbox->bytes && (outbox->bytes >= outbox->max || len > outbox->max - outbox->bytes))
		return OUTBOX_E_FULL;
	struct outbox_message *message = malloc(sizeof *message + len);
	if (!message)
		return -ENOMEM;
	*message = (struct outbox_message){.kind = kind, .len = len};
	if (first.len)
		memcpy(message->bytes, first.data, first.len);
	if (second.len)
		memcpy(message->bytes + first.len, second.data, second.len);
	if (is_control(kind)) {
		replace(kind == OUTBOX_PING ? &outbox->ping : &outbox->pong, message);
		return 0;
	}
	*outbox->tail = message;
	outbox->tail = &message->next;
	outbox->bytes += len;
	outbox->pushed++;
	return 0;
}

static struct outbox_message *choose(struct outbox *outbox)
{
	struct outbox_message *message = outbox->pong ? TAKE(outbox->pong) : TAKE(outbox->ping);
	if (message || !outbox->head)
		return message;
	message = outbox->head;
	outbox->head = message->next;
	if (!outbox->head)
		outbox->tail = &outbox->head;
	outbox->handed++;
	return message;
}

bool outbox_next(struct outbox *outbox, struct outbox_piece *piece)
{
	if (!outbox->current)
		outbox->current = choose(outbox);
	const struct outbox_message *message = outbox->current;
	if (!message)
		return false;
	*piece = (struct outbox_piece){.kind = message->kind,
				       .bytes = slice_of(message->bytes + message->sent, message->len - message->sent)};
	return true;
}

void outbox_sent(struct outbox *outbox, size_t n)
{
	struct outbox_message *message = outbox->current;
	message->sent += n;
	if (message->sent < message->len)
		return;
	if (!is_control(message->kind))
		outbox->bytes -= message->len;
	free(message);
	outbox->current = NULL;
}
