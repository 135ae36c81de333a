/*
 * copy - what a streamed answer has told, for those who ask later (stored.h): all of it, or nothing once it is more than `max` bytes
 *
 * Owns:       nothing. The bytes lie in the outputs and files that it is a copy of.
 * Lifetime:   copy_init …; outputs and files outlive its last use.
 * Runs on:    the agent loop.
 * Bounds:     `max` bytes of outputs and files together; without memory for them there is no copy, and the command goes on.
 */
#pragma once

#include "gateway/exec/outfiles.h"
#include "gateway/exec/output.h"

struct copy {
	struct output *streams; /* stdout, stderr: passing */
	struct outfiles *outfiles;
	size_t max;
	bool whole; /* everything that was told is there */
};

void copy_init(struct copy *copy, struct output streams[2], struct outfiles *outfiles, size_t max);
void copy_output(struct copy *copy, unsigned which, struct slice bytes);
void copy_file(struct copy *copy, struct outfile *file, struct slice bytes);
