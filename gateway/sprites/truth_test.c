/*
 * The truth table of a command: what the server sends, and what is told of it
 *
 * Each row is played over a real connection by a peer that sends the row's bytes once it has seen the start of the command:
 * frame by frame, byte by byte, and everything at once. What comes out must be the same, and the command must have been asked
 * for exactly once.
 */
#include "gateway/sprites/sandbox_dial.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "gateway/sprites/test_peer.h"

#define LOG_MAX ((size_t)1 << 20)

/* Server frames of RFC 6455: an unmasked head, then less than 126 bytes. */
#define RAW(literal)          {literal, sizeof(literal) - 1, -1}
#define FRAME(first, literal) {literal, sizeof(literal) - 1, first}
#define BIN(literal)          FRAME(0x82, literal)
#define TEXT(literal)         FRAME(0x81, literal)
#define ENVELOPE(json)        TEXT("control:" json)

#define OUT(text)             BIN("\001" text)
#define ERR(text)             BIN("\002" text)
#define EXIT(octal)           BIN("\003" octal)
#define TEXT_EXIT(code)       TEXT("{\"type\":\"exit\",\"exit_code\":" code "}")
#define ACK                   ENVELOPE("{\"type\":\"op.ack\",\"id\":\"1\"}")
#define SESSION               TEXT("{\"type\":\"session_info\",\"session_id\":\"42\",\"is_owner\":true,\"tty\":false}")
#define COMPLETE              ENVELOPE("{\"type\":\"op.complete\",\"id\":\"1\",\"args\":{\"ok\":true}}")
#define COMPLETE_SAYING(code) ENVELOPE("{\"type\":\"op.complete\",\"id\":\"1\",\"args\":{\"ok\":true,\"exitCode\":" code "}}")
#define ERROR(code)           ENVELOPE("{\"type\":\"op.error\",\"id\":\"1\",\"op\":\"exec\",\"args\":{\"code\":\"" code "\"}}")
#define CLOSE(octals)         FRAME(0x88, octals)
#define PING                  FRAME(0x89, "are you there")
#define PONG                  FRAME(0x8a, "unasked")

struct piece {
	const char *bytes;
	size_t len;
	int first; /* byte of the frame's head; -1 = the bytes as they are */
};

enum after {
	STAYS,  /* the connection goes on; the row ends when everything was read */
	ENDS,   /* FIN after the last byte */
	SILENT, /* nothing more comes, not even pongs */
};

struct row {
	const char *name;
	struct piece pieces[8];
	const char *said; /* "doubt": it may have run; "unrun": it certainly did not; "lost": the channel, after an exit */
	enum after after;
	bool exec; /* on a socket of its own (/exec) instead of /control */
};

#define ON_CONTROL(after, name, said, ...) {name, {__VA_ARGS__}, said, after, false}
#define ON_EXEC(after, name, said, ...)    {name, {__VA_ARGS__}, said, after, true}

static const struct row rows[] = {
	/* --- a status comes from an exit frame --- */
	ON_CONTROL(STAYS, "normal", "out:hi\n exit:0 ", ACK, SESSION, OUT("hi\n"), TEXT_EXIT("0"), EXIT("\000"), COMPLETE),
	ON_CONTROL(STAYS, "no output", "exit:0 ", ACK, SESSION, TEXT_EXIT("0"), EXIT("\000"), COMPLETE),
	ON_CONTROL(STAYS, "both streams", "out:a err:b out:c exit:1 ", ACK, SESSION, OUT("a"), ERR("b"), OUT("c"), EXIT("\001"), COMPLETE),
	ON_CONTROL(STAYS, "output is binary", "out:\\0\3\\0\377 exit:0 ", ACK, OUT("\000\003\000\377"), EXIT("\000"), COMPLETE),
	ON_CONTROL(STAYS, "killed: 128 + 9", "exit:137 ", ACK, SESSION, EXIT("\211"), COMPLETE),
	ON_CONTROL(STAYS, "status 255", "exit:255 ", ACK, EXIT("\377"), COMPLETE),
	ON_CONTROL(STAYS, "output after the text exit", "out:ab exit:0 ", ACK, OUT("a"), TEXT_EXIT("0"), OUT("b"), EXIT("\000"), COMPLETE),
	ON_CONTROL(STAYS, "the text exit says otherwise", "exit:9 ", ACK, TEXT_EXIT("0"), EXIT("\011"), COMPLETE),
	ON_CONTROL(STAYS, "op.complete has no exitCode", "exit:3 ", ACK, EXIT("\003"), COMPLETE),
	ON_CONTROL(STAYS, "op.complete says otherwise", "exit:3 ", ACK, EXIT("\003"), COMPLETE_SAYING("0")),
	ON_CONTROL(STAYS, "op.complete of another command", "exit:3 ", ACK, ENVELOPE("{\"type\":\"op.complete\",\"id\":\"7\"}"),
		   EXIT("\003"), COMPLETE),
	ON_CONTROL(STAYS, "no acknowledgement at all", "out:a exit:0 ", OUT("a"), EXIT("\000"), COMPLETE),
	ON_CONTROL(STAYS, "output after the exit frame, which is missed by the report", "out:a exit:0 ", ACK, OUT("a"), EXIT("\000"),
		   OUT("late"), COMPLETE),
	ON_CONTROL(STAYS, "a second exit frame", "exit:4 ", ACK, EXIT("\004"), EXIT("\000"), COMPLETE),
	ON_CONTROL(STAYS, "a message in fragments", "out:abc exit:0 ", ACK, FRAME(0x02, "\001a"), FRAME(0x00, "b"), FRAME(0x80, "c"),
		   EXIT("\000"), COMPLETE),
	ON_CONTROL(STAYS, "an exit frame in fragments", "exit:5 ", ACK, FRAME(0x02, "\003"), FRAME(0x80, "\005"), COMPLETE),
	ON_CONTROL(STAYS, "a ping between", "out:a exit:0 pong ", ACK, OUT("a"), PING, EXIT("\000"), COMPLETE),
	ON_CONTROL(STAYS, "a ping inside a message", "out:ab exit:0 pong ", ACK, FRAME(0x02, "\001a"), PING, FRAME(0x80, "b"), EXIT("\000"),
		   COMPLETE),
	ON_CONTROL(STAYS, "a pong that was not asked for", "exit:0 ", ACK, PONG, EXIT("\000"), COMPLETE),
	ON_CONTROL(STAYS, "unknown message types", "exit:0 ", ACK, TEXT("{\"type\":\"port_opened\",\"port\":80}"),
		   TEXT("{\"type\":\"new\"}"), TEXT("{\"type\":\"release\"}"), ENVELOPE("{\"type\":\"op.new\"}"), TEXT("no JSON"),
		   EXIT("\000"), COMPLETE),
	ON_CONTROL(STAYS, "a text error is a note", "exit:127 ", ACK, TEXT("{\"type\":\"error\",\"message\":\"no such file\"}"),
		   EXIT("\177"), COMPLETE),
	ON_CONTROL(STAYS, "op.not_active answers late input", "exit:0 ", ACK, ERROR("op.not_active"), EXIT("\000"), COMPLETE),

	/* --- without one it is not known --- */
	ON_CONTROL(STAYS, "op.complete without exit frame", "out:a doubt ", ACK, OUT("a"), COMPLETE),
	ON_CONTROL(STAYS, "op.complete with exitCode 0 without exit frame", "out:a doubt ", ACK, OUT("a"), COMPLETE_SAYING("0")),
	ON_CONTROL(STAYS, "text exit 0 and op.complete without exit frame", "out:a doubt ", ACK, OUT("a"), TEXT_EXIT("0"), COMPLETE),
	ON_CONTROL(STAYS, "op.complete at once", "doubt ", COMPLETE),
	ON_CONTROL(STAYS, "close 1000", "out:a doubt ", ACK, OUT("a"), CLOSE("\003\350")),
	ON_CONTROL(STAYS, "text exit 0 and close 1000", "out:a doubt ", ACK, OUT("a"), TEXT_EXIT("0"), CLOSE("\003\350")),
	ON_CONTROL(STAYS, "close 1011", "out:a doubt ", ACK, OUT("a"), CLOSE("\003\363internal error")),
	ON_CONTROL(STAYS, "close without a code", "doubt ", ACK, CLOSE("")),
	ON_CONTROL(ENDS, "1006: the connection ends", "out:a doubt ", ACK, OUT("a")),
	ON_CONTROL(ENDS, "the connection ends before the acknowledgement", "doubt ", PONG),
	ON_CONTROL(ENDS, "text exit 0 and the connection ends", "out:a doubt ", ACK, OUT("a"), TEXT_EXIT("0")),
	ON_CONTROL(ENDS, "half an output frame", "out:half doubt ", ACK, RAW("\x82\x09\001half")),
	ON_CONTROL(ENDS, "half an exit frame", "out:a doubt ", ACK, OUT("a"), RAW("\x82\x02\003")),
	ON_CONTROL(ENDS, "half a frame's head", "out:a doubt ", ACK, OUT("a"), RAW("\x82")),
	ON_CONTROL(STAYS, "an exit frame without a status", "out:a doubt ", ACK, OUT("a"), BIN("\003")),
	ON_CONTROL(STAYS, "an exit frame of 32 bits", "doubt ", ACK, BIN("\003\000\000\000\001")),
	ON_CONTROL(STAYS, "an exit frame as text", "doubt ", ACK, TEXT("\003\000"), COMPLETE),
	ON_CONTROL(SILENT, "45 s of silence", "out:a doubt ", ACK, OUT("a")),
	ON_CONTROL(SILENT, "45 s of silence from the start", "doubt ", RAW("")),
	ON_CONTROL(STAYS, "an unknown stream id", "out:a doubt ", ACK, OUT("a"), BIN("\005x"), EXIT("\000"), COMPLETE),
	ON_CONTROL(STAYS, "a client's stream id", "doubt ", ACK, BIN("\000x"), EXIT("\000"), COMPLETE),
	ON_CONTROL(STAYS, "a binary message without an id", "doubt ", ACK, BIN(""), EXIT("\000"), COMPLETE),
	ON_CONTROL(STAYS, "broken JSON in an envelope", "doubt ", ACK, ENVELOPE("{\"type\":"), EXIT("\000"), COMPLETE),
	ON_CONTROL(STAYS, "an envelope of no type", "doubt ", ACK, ENVELOPE("{\"id\":\"1\"}"), EXIT("\000"), COMPLETE),
	ON_CONTROL(STAYS, "op.error", "doubt ", ERROR("op.failed")),
	ON_CONTROL(STAYS, "op.error without a code", "doubt ", ENVELOPE("{\"type\":\"op.error\"}")),
	ON_CONTROL(STAYS, "op.error after the acknowledgement", "doubt ", ACK, ERROR("op.failed")),
	ON_CONTROL(STAYS, "op.busy after the acknowledgement", "doubt ", ACK, ERROR("op.busy")),
	ON_CONTROL(STAYS, "broken framing", "out:a doubt ", ACK, OUT("a"), FRAME(0xf2, "x")),

	/* --- the server says that it was not started --- */
	ON_CONTROL(STAYS, "op.busy", "unrun ", ERROR("op.busy")),
	ON_CONTROL(STAYS, "op.not_found", "unrun ", ERROR("op.not_found")),

	/* --- after the status only the channel can be lost --- */
	ON_CONTROL(STAYS, "close after the exit frame", "exit:0 lost ", ACK, EXIT("\000"), CLOSE("\003\363")),
	ON_CONTROL(ENDS, "the connection ends after the exit frame", "exit:2 lost ", ACK, EXIT("\002")),
	ON_CONTROL(STAYS, "nonsense after the exit frame", "exit:2 lost ", ACK, EXIT("\002"), BIN("")),
	ON_CONTROL(STAYS, "an exit frame after op.complete", "exit:2 lost ", ACK, EXIT("\002"), COMPLETE, EXIT("\000")),
	ON_CONTROL(STAYS, "output after op.complete", "exit:2 lost ", ACK, EXIT("\002"), COMPLETE, OUT("x")),
	ON_CONTROL(STAYS, "op.error after the exit frame", "exit:2 lost ", ACK, EXIT("\002"), ERROR("op.busy")),

	/* --- the same on /exec, where the handshake is the start --- */
	ON_EXEC(STAYS, "normal", "out:hi\n exit:0 ", SESSION, OUT("hi\n"), TEXT_EXIT("0"), EXIT("\000")),
	ON_EXEC(STAYS, "output after the text exit", "out:b exit:0 ", SESSION, TEXT_EXIT("0"), OUT("b"), EXIT("\000")),
	ON_EXEC(STAYS, "close 1000 without exit frame", "out:a doubt ", SESSION, OUT("a"), TEXT_EXIT("0"), CLOSE("\003\350")),
	ON_EXEC(ENDS, "1006: the connection ends", "out:a doubt ", SESSION, OUT("a")),
	ON_EXEC(ENDS, "half an exit frame", "doubt ", SESSION, RAW("\x82\x02\003")),
	ON_EXEC(SILENT, "45 s of silence", "out:a doubt ", SESSION, OUT("a")),
};

/* --- the client --- */

static uv_loop_t loop;
static struct curl_driver *driver;
static struct secret token;
static struct sandbox *sandbox;
static struct buf said;
static enum sandbox_stream speaking;
static bool speaks;
static bool dialled;

static void say(const char *format, ...) PRINTF(1, 2);

static void say(const char *format, ...)
{
	va_list args;
	if (speaks)
		assert_int_equal(buf_append_char(&said, ' '), 0);
	speaks = false;
	va_start(args, format);
	assert_int_equal(buf_vprintf(&said, format, args), 0);
	va_end(args);
}

/* Pieces of one stream that follow each other are one, however they were cut. */
static void on_output(void *ctx UNUSED, enum sandbox_stream stream, struct slice bytes)
{
	if (!speaks || stream != speaking)
		say("%s:", stream == SANDBOX_STDOUT ? "out" : "err");
	speaks = true;
	speaking = stream;
	for (size_t i = 0; i < bytes.len; i++)
		assert_int_equal(bytes.data[i] ? buf_append_char(&said, bytes.data[i]) : buf_append(&said, SLICE("\\0")), 0);
}

static void on_exit_frame(void *ctx UNUSED, unsigned exit_code)
{
	say("exit:%u ", exit_code);
}

static void on_broken(void *ctx UNUSED, enum sandbox_doubt doubt, const char *reason)
{
	assert_true(strlen(reason) > 0);
	say("%s ", doubt == SANDBOX_NOT_STARTED ? "unrun" : "doubt");
}

static void on_lost(void *ctx UNUSED, const char *reason)
{
	assert_true(strlen(reason) > 0);
	say("lost ");
}

static void on_dialled(void *ctx UNUSED, struct sandbox *got UNUSED, const struct socket_refusal *refusal)
{
	assert_null(refusal);
	dialled = true;
}

static const struct sandbox_events events = {.on_output = on_output, .on_exit = on_exit_frame, .on_broken = on_broken};

#define RUN_UNTIL(condition)                                                    \
	for (int alive_ = 1; !(condition); alive_ = uv_run(&loop, UV_RUN_ONCE)) \
	assert_int_not_equal(alive_, 0)

static void open_sandbox(const struct row *row)
{
	char url[64];
	snprintf(url, sizeof url, "ws://127.0.0.1:%d", peer.port);
	unsigned dead_ms = row->after == SILENT ? 40 : 1800000;
	struct sandbox_options options = {.socket = {.loop = &loop,
						     .driver = driver,
						     .token = &token,
						     .connect_timeout_ms = 5000,
						     .handshake_timeout_ms = 5000,
						     .ping_interval_ms = row->after == SILENT ? 10 : 600000,
						     .dead_after_ms = dead_ms,
						     .max_unsent = 1 << 20},
					  .ws_url = url,
					  .complete_timeout_ms = 60000};
	if (row->exec)
		peer.answer = "HTTP/1.1 404 Not Found\r\nSprite-Version: dev\r\nContent-Length: 0\r\n\r\n";
	peer.answers_pings = row->after != SILENT;
	assert_int_equal(sandbox_dial(&options, "sg-1", false, on_dialled, NULL, &sandbox), 0);
	RUN_UNTIL(dialled);
	peer.answer = NULL;
	sandbox_on_lost(sandbox, on_lost, NULL);
}

static void start_command(void)
{
	static const char *const argv[] = {"sh", "-c", "x"};
	struct sandbox_command command = {.argv = argv, .argc = ARRAY_LEN(argv)};
	assert_int_equal(sandbox_run(sandbox, &command, &events, NULL), 0);
	/* The end of its input: everything before has arrived. */
	RUN_UNTIL(peer_has("2:\004\n"));
}

/* --- playing --- */

enum manner { FRAME_BY_FRAME, BYTE_BY_BYTE, AT_ONCE, MANNERS };

static void wire(const struct row *row, struct buf *out)
{
	for (size_t i = 0; i < ARRAY_LEN(row->pieces) && row->pieces[i].bytes; i++) {
		const struct piece *piece = &row->pieces[i];
		const char head[] = {(char)piece->first, (char)piece->len};
		assert_true(piece->len < 126);
		if (piece->first >= 0)
			assert_int_equal(buf_append(out, slice_of(head, 2)), 0);
		assert_int_equal(buf_append(out, slice_of(piece->bytes, piece->len)), 0);
	}
}

/* Whoever is told that all is over may have closed the connection under the peer. */
static void send_some(struct slice bytes)
{
	if (bytes.len && !uv_is_closing((uv_handle_t *)peer.connection) && uv_is_writable((uv_stream_t *)peer.connection))
		peer_send(bytes);
	for (int i = 0; i < 3; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
}

static void send_row(const struct row *row, enum manner manner)
{
	CLEANUP(buf_deinit) struct buf all = BUF_MAX(LOG_MAX);
	wire(row, &all);
	struct slice rest = buf_peek(&all);
	for (size_t i = 0; manner == FRAME_BY_FRAME && i < ARRAY_LEN(row->pieces) && row->pieces[i].bytes; i++) {
		size_t len = row->pieces[i].len + (row->pieces[i].first >= 0 ? 2 : 0);
		send_some(slice_of(rest.data, len));
		rest = slice_from(rest, len);
	}
	for (; manner == BYTE_BY_BYTE && rest.len; rest = slice_from(rest, 1))
		send_some(slice_of(rest.data, 1));
	send_some(rest);
	if (row->after == ENDS && !uv_is_closing((uv_handle_t *)peer.connection))
		uv_close((uv_handle_t *)peer.connection, NULL);
}

static bool late;

static void on_late(uv_timer_t *timer UNUSED)
{
	late = true;
}

/* Until as much was said as is wanted; check() says what is wrong when that never comes. */
static void wait_for_words(const struct row *row)
{
	size_t want = strlen(row->said) - (strstr(row->said, "pong") ? strlen("pong ") : 0);
	uv_timer_t timer;
	late = false;
	uv_timer_init(&loop, &timer);
	uv_timer_start(&timer, on_late, 10000, 0);
	while (said.len < want && !late)
		uv_run(&loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&timer, NULL);
	/* What would come too much comes now. */
	for (int i = 0; i < 5; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
}

static void check(const struct row *row, enum manner manner)
{
	static const char *const manners[] = {"frame by frame", "byte by byte", "at once"};
	if (peer_count("a:are you there\n"))
		say("pong ");
	if (!slice_equal(buf_peek(&said), slice_str(row->said)))
		fail_msg("%s%s, %s: said \"%.*s\", not \"%s\"", row->name, row->exec ? " (/exec)" : "", manners[manner],
			 SLICE_FMT(buf_peek(&said)), row->said);
	/* Asked for once: one op.start, or one connection beside that of the refused /control. */
	assert_int_equal(peer_count("op.start"), row->exec ? 0 : 1);
	assert_int_equal(peer.connected, row->exec ? 2 : 1);
}

static void play(const struct row *row, enum manner manner)
{
	assert_int_equal(uv_loop_init(&loop), 0);
	driver = curl_driver_new(&loop);
	assert_non_null(driver);
	peer_start(&loop);
	dialled = speaks = false;
	open_sandbox(row);
	start_command();
	send_row(row, manner);
	wait_for_words(row);
	check(row, manner);
	sandbox_close(sandbox);
	peer_stop();
	uv_run(&loop, UV_RUN_DEFAULT);
	curl_driver_free(driver);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	buf_deinit(&said);
	peer_free();
}

static void test_truth_table(void **state UNUSED)
{
	said = BUF_MAX(LOG_MAX);
	assert_int_equal(secret_init(&token, SLICE("secret")), 0);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		for (enum manner manner = 0; manner < MANNERS; manner++)
			play(&rows[i], manner);
	secret_deinit(&token);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {cmocka_unit_test(test_truth_table)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
