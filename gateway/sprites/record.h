/*
 * record - where a Sprite keeps a copy of what its command printed, and the program that makes it
 *
 * Preparing a Sprite leaves the shim (gateway/shim) in the folder. It starts every command (exec/launch.h), copies what the command
 * prints into two files there and ends its standard output with a report: RECORD_REPORT_MARK, the nonce it was given, and as 16
 * hexadecimal digits each the bytes printed on stdout and stderr and, of a command that ended before its group was sent a TERM,
 * RECORD_OWN_END and its exit code (else 0). The files are read by a later command on the same channel
 * (exec/check.c). They count only when a third one says that they are whole, by a line with the command's nonce: a full disk or a
 * recorder that was killed leaves none, or that of an earlier command. Of a stream that has more than RECORD_MAX bytes nothing is
 * kept, and then the record is not whole. A Sprite records one command at a time.
 *
 * Beside them is until when the processes of a session may live, unless another command comes.
 */
#pragma once

#define RECORD_FOLDER "/tmp/.spritegate"
#define RECORD_SHIM   RECORD_FOLDER "/shim"
#define RECORD_STDOUT "stdout" /* in the folder */
#define RECORD_STDERR "stderr"
#define RECORD_END    "end"
#define RECORD_UNTIL  "until"
#define RECORD_INSIDE "/.sprite/api.sock" /* nothing but a Sprite has it */

#define RECORD_MAX ((uint64_t)64 * 1024 * 1024)

#define RECORD_NONCE_LEN   32
#define RECORD_REPORT_MARK '\x1e'
#define RECORD_REPORT_LEN  (1 + RECORD_NONCE_LEN + 3 * 16)
#define RECORD_OWN_END     256

/* "shim wait" is started ahead of its command, whose arguments it reads before the line; without any it ends with this status. */
#define RECORD_WAIT       "wait"
#define RECORD_UNUSED     125
#define RECORD_ORDER_LINE "%08zx\n" /* their length in bytes, each with a NUL */

/* The shim also reads files back (exec/outfiles.h): "shim read CWD NONCE BYTES" answers one line per file that it was told on standard
 * input, in order, until it has given BYTES of them: the nonce, a letter, and as 16 hexadecimal digits each the file's size, how many bytes of
 * it follow the line, device, inode, and when contents and inode last changed (ns). RECORD_READ_END ends the answer, which is not whole
 * without. */
#define RECORD_READ          "read"
#define RECORD_READ_MAX      ((size_t)256 * 1024)
#define RECORD_READ_ID_LEN   (4 * 16)
#define RECORD_READ_LINE_LEN (RECORD_NONCE_LEN + 1 + 2 * 16 + RECORD_READ_ID_LEN + 1)

#define RECORD_READ_FILE        'f'
#define RECORD_READ_NOT_FOUND   'n'
#define RECORD_READ_DIRECTORY   'd'
#define RECORD_READ_NOT_REGULAR 's'
#define RECORD_READ_DENIED      'p'
#define RECORD_READ_CHANGED     'c' /* while it was read */
#define RECORD_READ_FAILED      'x'
#define RECORD_READ_END         'e'

/* bash: leaves the shim that comes as standard input, with the SHA-256 "$1", and prints RECORD_SHIM_SAYS if it can be run. Otherwise
 * the Sprite works all the same, but keeps no record. An earlier one that was cut off may still be at it. */
#define RECORD_PREPARE                                                                                     \
	"{ hash stat sha256sum head dd && mkdir -m 700 -p " RECORD_FOLDER " && cat >|" RECORD_FOLDER "/$$" \
	" && echo \"$1  " RECORD_FOLDER "/$$\" | sha256sum -c --status && chmod 700 " RECORD_FOLDER "/$$"  \
	" && mv -f " RECORD_FOLDER "/$$ " RECORD_SHIM " && " RECORD_SHIM " || rm -f " RECORD_FOLDER "/$$; } 2>/dev/null || :\n"

#define RECORD_SHIM_SAYS "shim "
