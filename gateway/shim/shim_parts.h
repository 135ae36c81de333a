/*
 * shim_parts - what the files of the shim share: plain input and output, and the clock; nobody else includes it
 *
 * Errors:  what cannot go on ends the process, with a sentence on standard error where somebody reads it.
 */
#pragma once

#include "gateway/sprites/record.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXIT_NO_INPUT 125
#define EXIT_SETUP    126
#define EXIT_MISSING  127
#define EXIT_SIGNAL   128

#define LINE_BYTES 128

_Noreturn void shim_fail(int status, const char *what, const char *about);

/* Of standard input, all of it: a shorter one is the end of this process. */
void shim_read(char *to, size_t len);

/* A line of standard input without its end; its length. */
size_t shim_read_line(char line[LINE_BYTES]);

/* False when the other side is gone or there is no room. */
bool shim_write(int fd, const char *from, size_t len);

/* 16 digits, no NUL. */
void shim_put_hex(char *to, uint64_t number);

/* Of this machine's time awake. */
int64_t shim_now_ms(void);

void shim_block_signals(sigset_t *before);
