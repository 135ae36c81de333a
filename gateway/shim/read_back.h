/*
 * read_back - gives files of this Sprite back by standard output, as standard input asks for them (sprites/record.h)
 */
#pragma once

/* Of the command line `shim read CWD NONCE MOST`. */
_Noreturn void read_back_all(char **argv);
