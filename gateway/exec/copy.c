#include "gateway/exec/copy.h"

void copy_init(struct copy *copy, struct output streams[2], struct outfiles *outfiles, size_t max)
{
	*copy = (struct copy){.streams = streams, .outfiles = outfiles, .max = max, .whole = true};
	for (size_t i = 0; i < 2; i++)
		streams[i].bytes = BUF_MAX(max);
}

static void drop(struct copy *copy)
{
	copy->whole = false;
	for (size_t i = 0; i < 2; i++)
		buf_deinit(&copy->streams[i].bytes);
	for (size_t i = 0; i < copy->outfiles->count; i++)
		buf_deinit(&copy->outfiles->files[i].bytes);
}

/* A file that failed has given its bytes back. */
static size_t held(const struct copy *copy)
{
	size_t bytes = copy->streams[0].bytes.len + copy->streams[1].bytes.len;
	for (size_t i = 0; i < copy->outfiles->count; i++)
		bytes += copy->outfiles->files[i].bytes.len;
	return bytes;
}

static void keep(struct copy *copy, struct buf *kept, struct slice bytes)
{
	if (!copy->whole)
		return;
	if (bytes.len > copy->max - held(copy) || buf_append(kept, bytes) < 0)
		drop(copy);
}

void copy_output(struct copy *copy, unsigned which, struct slice bytes)
{
	keep(copy, &copy->streams[which].bytes, bytes);
}

void copy_file(struct copy *copy, struct outfile *file, struct slice bytes)
{
	keep(copy, &file->bytes, bytes);
}
