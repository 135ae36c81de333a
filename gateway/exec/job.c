#include "gateway/exec/job.h"

#include <stdlib.h>

struct exec_job *exec_job_new(const char *exec_id)
{
	struct exec_job *job = calloc(1, sizeof *job);
	if (!job)
		return NULL;
	job->message.kind = EXEC_START;
	memcpy(job->message.exec_id, exec_id, sizeof job->message.exec_id);
	return job;
}

void exec_job_free(struct exec_job *job)
{
	if (!job)
		return;
	exec_request_free(job->request);
	exec_answer_deinit(&job->answer);
	free(job);
}

struct exec_piece *exec_piece_new(const char *exec_id, struct buf *text)
{
	struct exec_piece *piece = calloc(1, sizeof *piece);
	if (!piece)
		return NULL;
	piece->message.kind = EXEC_PIECE;
	memcpy(piece->message.exec_id, exec_id, sizeof piece->message.exec_id);
	piece->text = *text;
	*text = BUF_MAX(text->max);
	return piece;
}

void exec_piece_free(struct exec_piece *piece)
{
	buf_deinit(&piece->text);
	free(piece);
}

bool exec_credit_send(struct mailbox *to, const char *exec_id, size_t bytes)
{
	struct exec_credit *credit = calloc(1, sizeof *credit);
	if (!credit)
		return false;
	credit->message.kind = EXEC_CREDIT;
	memcpy(credit->message.exec_id, exec_id, sizeof credit->message.exec_id);
	credit->bytes = bytes;
	/* Not counted against the queue: there are no more of them than pieces. */
	if (mailbox_reply(to, &credit->message.item) != 0)
		free(credit);
	return true;
}

struct exec_cancel *exec_cancel_new(const char *exec_id, bool on_request, bool at_once)
{
	struct exec_cancel *cancel = calloc(1, sizeof *cancel);
	if (!cancel)
		return NULL;
	cancel->message.kind = EXEC_CANCEL;
	cancel->on_request = on_request;
	cancel->at_once = at_once;
	memcpy(cancel->message.exec_id, exec_id, sizeof cancel->message.exec_id);
	return cancel;
}
