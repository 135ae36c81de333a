/*
 * record - where a Sprite keeps a copy of what its command printed
 *
 * Preparing a Sprite makes the folder with three named pipes. The script that starts a command (exec/launch.c) lets `tee` copy what
 * comes through RECORD_STDOUT_PIPE and RECORD_STDERR_PIPE into files, and knows by the end of RECORD_END_PIPE that both are done.
 * The files are read by a later command on the same channel (exec/check.c). A Sprite records one command.
 */
#pragma once

#define RECORD_FOLDER "/tmp/.spritegate"
#define RECORD_STDOUT_PIPE RECORD_FOLDER "/1"
#define RECORD_STDERR_PIPE RECORD_FOLDER "/2"
#define RECORD_END_PIPE RECORD_FOLDER "/end"
#define RECORD_STDOUT "stdout" /* in the folder */
#define RECORD_STDERR "stderr"

/* A Sprite in which this fails works, but keeps no record. */
#define RECORD_PREPARE                                                                                                 \
	"[ -p " RECORD_END_PIPE " ] || { hash tee stat sha256sum head dd && mkdir -m 700 " RECORD_FOLDER               \
	" && mkfifo -m 600 " RECORD_STDOUT_PIPE " " RECORD_STDERR_PIPE " " RECORD_END_PIPE "; } || :"
