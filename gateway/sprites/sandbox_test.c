/* The sandbox over a socket that the test plays. */
#include "gateway/sprites/sandbox_dial.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "gateway/sprites/test_socket.h"

#include <errno.h>

#define LOG_MAX ((size_t)1 << 20)

#define START(id, argv, path)                                                                                              \
	"t:control:{\"type\":\"op.start\",\"id\":\"" id "\",\"op\":\"exec\",\"args\":{\"cmd\":[" argv "],\"path\":\"" path \
	"\",\"stdin\":\"true\"}}\n"
#define START_SH(id) START(id, "\"sh\",\"-c\",\"x\"", "sh")
#define PROBE(id)    START(id, "\"true\"", "true") "b:4 \n"

/* --- the sandbox --- */

static const struct log_subject of_all = {.exec_id = "01234567-89ab-7def-8123-456789abcdef"};
static uv_loop_t loop;
static struct sandbox_options options;
static struct sandbox *sandbox;

static struct {
	struct buf log; /* what the callbacks said */
	enum { KEEP, CLOSE, RUN_AGAIN, PAUSE } on_output, on_exit, on_broken, on_lost;
	int killed;
	int kill_result;
} seen;

static int run(void);

static void react(int what)
{
	if (what == CLOSE)
		sandbox_close(sandbox);
	else if (what == RUN_AGAIN)
		assert_int_equal(run(), 0);
	else if (what == PAUSE)
		sandbox_pause(sandbox);
}

static void say(const char *format, ...) PRINTF(1, 2);

static void say(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	assert_int_equal(buf_vprintf(&seen.log, format, args), 0);
	va_end(args);
}

static void on_output(void *ctx UNUSED, enum sandbox_stream stream, struct slice bytes)
{
	say("%s:%.*s ", stream == SANDBOX_STDOUT ? "out" : "err", SLICE_FMT(bytes));
	react(seen.on_output);
}

static void on_exit_frame(void *ctx UNUSED, unsigned exit_code)
{
	say("exit:%u ", exit_code);
	react(seen.on_exit);
}

static void on_broken(void *ctx UNUSED, enum sandbox_doubt doubt, const char *reason)
{
	assert_true(strlen(reason) > 0);
	say("%s ", doubt == SANDBOX_NOT_STARTED ? "unrun" : "doubt");
	react(seen.on_broken);
}

static void on_lost(void *ctx UNUSED, const char *reason)
{
	assert_true(strlen(reason) > 0);
	say("lost ");
	react(seen.on_lost);
}

static void on_input(void *ctx UNUSED)
{
	say("more ");
}

static const struct sandbox_events events = {
	.on_output = on_output, .on_exit = on_exit_frame, .on_input = on_input, .on_broken = on_broken};

static void on_dialled(void *ctx UNUSED, struct sandbox *dialled, const struct socket_refusal *refusal)
{
	assert_ptr_equal(dialled, sandbox);
	if (refusal)
		say("refused:%u ", refusal->status);
	else
		say("dialled ");
}

static int on_kill(void *ctx UNUSED, const char *name, const char *session, const char *signal, const struct log_subject *subject)
{
	say("kill:%s/%s/%s ", name, session, signal);
	assert_string_equal(subject->exec_id, of_all.exec_id);
	seen.killed++;
	return seen.kill_result;
}

static bool said(const char *want)
{
	bool same = slice_equal(buf_peek(&seen.log), slice_str(want));
	if (!same)
		print_message("said: %.*s\n", SLICE_FMT(buf_peek(&seen.log)));
	buf_deinit(&seen.log);
	return same;
}

static int run_with(struct slice input)
{
	static const char *const argv[] = {"sh", "-c", "x"};
	struct sandbox_command command = {.argv = argv, .argc = 3, .input = input, .subject = &of_all};
	return sandbox_run(sandbox, &command, &events, NULL);
}

static int run(void)
{
	return run_with(SLICE(""));
}

static int set_up(void **state UNUSED)
{
	memset(&net, 0, sizeof net);
	memset(&seen, 0, sizeof seen);
	net.sent = BUF_MAX(LOG_MAX);
	seen.log = BUF_MAX(LOG_MAX);
	assert_int_equal(uv_loop_init(&loop), 0);
	options = (struct sandbox_options){.socket = {.loop = &loop}, .ws_url = "ws://api", .complete_timeout_ms = 2000, .kill = on_kill};
	sandbox = NULL;
	return 0;
}

static int tear_down(void **state UNUSED)
{
	sandbox_close(sandbox);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	assert_null(net.open);
	buf_deinit(&net.sent);
	buf_deinit(&seen.log);
	return 0;
}

static void dial(void)
{
	assert_int_equal(sandbox_dial(&options, "sg-1/x", false, on_dialled, NULL, &sandbox), 0);
}

static void open_control(void)
{
	dial();
	assert_string_equal(net.url, "ws://api/v1/sprites/sg-1%2Fx/control");
	assert_true(said(""));
	net.open->events->on_open(net.open->ctx);
	assert_true(said("dialled "));
	sandbox_on_lost(sandbox, on_lost, NULL);
}

static void open_exec(void)
{
	dial();
	refuse((struct socket_refusal){.status = 404, .request_sent = true, .from_agent = true});
	assert_true(said("dialled "));
	assert_true(sandbox_uses_exec(sandbox));
	sandbox_on_lost(sandbox, on_lost, NULL);
}

/* Turns of the loop until something was said. */
static void wait_for_words(void)
{
	while (!seen.log.len)
		uv_run(&loop, UV_RUN_ONCE);
}

static void wait_for_sending(void)
{
	while (!net.sent.len)
		uv_run(&loop, UV_RUN_ONCE);
}

/* --- dialling --- */

static void test_refused_dial(void **state UNUSED)
{
	dial();
	assert_int_equal(run(), SANDBOX_E_LOST);
	refuse((struct socket_refusal){.status = 503});
	assert_true(said("refused:503 "));
	assert_int_equal(run(), SANDBOX_E_LOST);
}

static void test_false_404(void **state UNUSED)
{
	dial();
	refuse((struct socket_refusal){.status = 404});
	assert_true(said("refused:404 "));
	sandbox_close(sandbox);
	assert_int_equal(sandbox_dial(&options, "sg-1", true, on_dialled, NULL, &sandbox), 0);
	refuse((struct socket_refusal){.status = 404});
	assert_true(said("dialled "));
	assert_true(sandbox_uses_exec(sandbox));
}

static void test_dial_that_cannot_begin(void **state UNUSED)
{
	struct sandbox *none = NULL;
	net.refuse_open = -ENOMEM;
	assert_int_equal(sandbox_dial(&options, "sg-1", false, on_dialled, NULL, &none), -ENOMEM);
	assert_null(none);
}

static void test_close_while_dialling(void **state UNUSED)
{
	dial();
	sandbox_close(sandbox);
	assert_int_equal(net.closed, 1);
	assert_true(said(""));
}

/* --- commands on the control socket --- */

static void test_commands_one_after_another(void **state UNUSED)
{
	open_control();
	assert_string_equal(sandbox_name(sandbox), "sg-1/x");
	assert_int_equal(run_with(SLICE("in")), 0);
	assert_true(sent(START_SH("1") "b:0 in\nb:4 \n"));
	assert_int_equal(run(), SANDBOX_E_BUSY);
	ack();
	FRAME("\001a");
	FRAME("\002b");
	text("{\"type\":\"exit\",\"exit_code\":0}");
	FRAME("\001c");
	FRAME("\003\003");
	assert_true(said("out:a err:b out:c exit:3 "));
	complete();
	assert_int_equal(run(), 0);
	assert_true(sent(START_SH("2") "b:4 \n"));
	ack();
	FRAME("\003\000");
	assert_true(said("exit:0 "));
	assert_int_equal(net.opened, 1);
	assert_int_equal(net.closed, 0);
}

static void test_next_command_waits_for_op_complete(void **state UNUSED)
{
	open_control();
	seen.on_exit = RUN_AGAIN;
	assert_int_equal(run(), 0);
	ack();
	assert_true(sent(START_SH("1") "b:4 \n"));
	FRAME("\003\001");
	assert_true(said("exit:1 "));
	assert_int_equal(run(), SANDBOX_E_BUSY);
	FRAME("\003\002"); /* a second exit frame, and output after it, belong to nobody */
	FRAME("\001x");
	assert_true(sent(""));
	complete();
	assert_true(sent(START_SH("2") "b:4 \n"));
	seen.on_exit = KEEP;
	ack();
	FRAME("\003\007");
	assert_true(said("exit:7 "));
}

static void test_results(void **state UNUSED)
{
	static char longest[FRAMES_ARG_MAX + 2];
	const char *const argv[] = {"echo", longest}, *const latin1[] = {"\xe4"};
	struct sandbox_command command = {.argv = argv, .argc = 2};
	memset(longest, 'x', sizeof longest - 1);
	open_control();
	assert_int_equal(sandbox_run(sandbox, &command, &events, NULL), SANDBOX_E_TOO_LONG);
	command = (struct sandbox_command){.argv = latin1, .argc = 1};
	assert_int_equal(sandbox_run(sandbox, &command, &events, NULL), -EINVAL);
	net.refuse_send = -ENOMEM;
	assert_int_equal(run(), -ENOMEM);
	net.refuse_send = SOCKET_E_CLOSED;
	assert_int_equal(run(), SANDBOX_E_LOST);
	net.refuse_send = 0;
	assert_true(sent(""));
	assert_int_equal(run(), 0);
	assert_true(sent(START_SH("1") "b:4 \n"));
}

/* --- what breaks --- */

static void test_cut_before_anything_was_handed_over(void **state UNUSED)
{
	open_control();
	net.holding = true;
	assert_int_equal(run(), 0);
	cut();
	assert_true(said("unrun "));
	sandbox_close(sandbox);
	/* The network took it, and then came nothing. */
	open_control();
	assert_int_equal(run(), 0);
	net.handed = net.queued;
	cut();
	assert_true(said("doubt "));
}

static void test_cut_while_idle(void **state UNUSED)
{
	open_control();
	cut();
	assert_true(said("lost "));
	assert_int_equal(net.closed, 1);
}

static void test_loss_before_somebody_listens(void **state UNUSED)
{
	dial();
	net.open->events->on_open(net.open->ctx);
	cut();
	assert_true(said("dialled "));
	sandbox_on_lost(sandbox, on_lost, NULL);
	assert_true(said(""));
	wait_for_words();
	assert_true(said("lost "));
}

static void test_op_complete_never_comes(void **state UNUSED)
{
	options.complete_timeout_ms = 1;
	open_control();
	assert_int_equal(run(), 0);
	ack();
	FRAME("\003\000");
	assert_true(said("exit:0 "));
	wait_for_words();
	assert_true(said("lost "));
}

static void test_op_complete_never_comes_while_one_waits(void **state UNUSED)
{
	options.complete_timeout_ms = 1;
	open_control();
	assert_int_equal(run(), 0);
	ack();
	FRAME("\003\000");
	assert_true(said("exit:0 "));
	assert_int_equal(run(), 0);
	wait_for_words();
	assert_true(said("unrun "));
}

static void test_close_in_callbacks(void **state UNUSED)
{
	open_control();
	seen.on_output = CLOSE;
	assert_int_equal(run(), 0);
	ack();
	FRAME("\001a");
	assert_true(said("out:a "));
	open_control();
	seen.on_exit = CLOSE;
	assert_int_equal(run(), 0);
	FRAME("\003\001");
	assert_true(said("exit:1 "));
	open_control();
	seen.on_broken = CLOSE;
	assert_int_equal(run(), 0);
	cut();
	assert_true(said("doubt "));
	open_control();
	seen.on_lost = CLOSE;
	cut();
	assert_true(said("lost "));
}

static void test_close_tells_nobody(void **state UNUSED)
{
	open_control();
	assert_int_equal(run(), 0);
	ack();
	sandbox_close(sandbox);
	sandbox_close(sandbox);
	uv_run(&loop, UV_RUN_DEFAULT);
	sandbox = NULL;
	assert_true(said(""));
}

/* --- input, signals, pauses --- */

static void test_input_in_pieces_with_back_pressure(void **state UNUSED)
{
	static char input[300000];
	open_control();
	net.holding = true;
	assert_int_equal(run_with(slice_of(input, sizeof input)), 0);
	assert_true(sent(START_SH("1") "b:0#32768\nb:0#32768\nb:0#32768\nb:0#32768\n"));
	drained();
	assert_true(sent("b:0#32768\nb:0#32768\nb:0#32768\nb:0#32768\n"));
	ack();
	net.unsent = 0;
	drained();
	assert_true(sent("b:0#32768\nb:0#5088\nb:4 \n"));
	drained();
	assert_true(sent(""));
}

static int run_with_more(struct slice input)
{
	static const char *const argv[] = {"sh", "-c", "x"};
	struct sandbox_command command = {.argv = argv, .argc = 3, .input = input, .more_input = true};
	return sandbox_run(sandbox, &command, &events, NULL);
}

static void test_input_that_comes_later(void **state UNUSED)
{
	static char input[300000];
	open_control();
	assert_int_equal(sandbox_feed(sandbox, SLICE("x")), 0);
	net.holding = true;
	assert_int_equal(run_with_more(SLICE("line\n")), 0);
	assert_true(sent(START_SH("1") "b:0 line\n\n"));
	assert_int_equal(sandbox_feed(sandbox, slice_of(input, sizeof input)), 131072);
	assert_true(sent("b:0#32768\nb:0#32768\nb:0#32768\nb:0#32768\n"));
	assert_int_equal(sandbox_feed(sandbox, slice_of(input, 1)), 0);
	assert_true(said(""));
	drained();
	assert_true(said("more "));
	ack();
	assert_true(said("more "));
	assert_int_equal(sandbox_feed(sandbox, SLICE("0123456789")), 10);
	sandbox_end_input(sandbox);
	assert_true(sent("b:0 0123456789\nb:4 \n"));
	assert_int_equal(sandbox_feed(sandbox, SLICE("x")), 0);
	drained();
	assert_true(said(""));
	assert_true(sent(""));
}

/* Nothing of it goes to a keepalive that is under way, and no end either. */
static void test_input_that_comes_while_a_command_waits(void **state UNUSED)
{
	options.keepalive_ms = 1;
	options.keepalive_timeout_ms = 10000;
	open_control();
	while (!net.sent.len)
		uv_run(&loop, UV_RUN_ONCE);
	assert_true(sent(PROBE("1")));
	assert_int_equal(run_with_more(SLICE("a")), 0);
	assert_int_equal(sandbox_feed(sandbox, SLICE("b")), 0);
	ack();
	FRAME("\003\000");
	assert_true(sent(""));
	complete();
	assert_true(sent(START_SH("2") "b:0 a\n"));
	assert_true(said("more "));
	assert_int_equal(sandbox_feed(sandbox, SLICE("b")), 1);
	sandbox_end_input(sandbox);
	assert_true(sent("b:0 b\nb:4 \n"));
}

static void test_input_ends_with_the_command(void **state UNUSED)
{
	static char input[300000];
	open_control();
	net.holding = true;
	assert_int_equal(run_with(slice_of(input, sizeof input)), 0);
	drained();
	ack();
	buf_deinit(&net.sent);
	FRAME("\003\001");
	assert_int_equal(net.dropped, 1);
	drained();
	assert_true(sent(""));
	complete();
	net.holding = false;
	assert_int_equal(run(), 0);
	assert_true(sent(START_SH("2") "b:4 \n"));
}

static void test_no_memory_for_input(void **state UNUSED)
{
	static char input[300000];
	open_control();
	net.holding = true;
	assert_int_equal(run_with(slice_of(input, sizeof input)), 0);
	net.refuse_send = -ENOMEM;
	drained();
	assert_true(said(""));
	wait_for_words();
	assert_true(said("doubt "));
	sandbox_close(sandbox);
	/* The command ends before that is told. */
	net.refuse_send = 0;
	options.keepalive_ms = 60000;
	open_control();
	assert_int_equal(run_with(slice_of(input, sizeof input)), 0);
	net.refuse_send = -ENOMEM;
	drained();
	FRAME("\003\001");
	assert_true(said("exit:1 "));
	uv_run(&loop, UV_RUN_NOWAIT);
	uv_run(&loop, UV_RUN_NOWAIT);
	assert_true(said(""));
}

static void test_signals(void **state UNUSED)
{
	open_control();
	assert_int_equal(sandbox_signal(sandbox, "TERM"), SANDBOX_E_LOST);
	assert_int_equal(run(), 0);
	ack();
	buf_deinit(&net.sent);
	assert_int_equal(sandbox_signal(sandbox, "TERM"), 0);
	assert_true(sent("t:{\"type\":\"signal\",\"signal\":\"TERM\"}\n"));
	assert_int_equal(sandbox_signal(sandbox, "KILL"), 0);
	assert_true(sent("t:{\"type\":\"signal\",\"signal\":\"KILL\"}\n"));
	FRAME("\003\211");
	assert_int_equal(sandbox_signal(sandbox, "KILL"), SANDBOX_E_LOST);
	assert_true(said("exit:137 "));
	assert_int_equal(seen.killed, 0);
}

static void test_signal_of_a_command_that_waits(void **state UNUSED)
{
	open_control();
	assert_int_equal(run(), 0);
	ack();
	FRAME("\003\000");
	assert_int_equal(run(), 0);
	buf_deinit(&net.sent);
	assert_int_equal(sandbox_signal(sandbox, "TERM"), 0);
	assert_int_equal(sandbox_signal(sandbox, "KILL"), 0);
	assert_true(sent(""));
	complete();
	assert_true(sent(START_SH("2") "b:4 \nt:{\"type\":\"signal\",\"signal\":\"KILL\"}\n"));
}

static void test_signal_past_input_that_nobody_reads(void **state UNUSED)
{
	static char input[100000];
	open_control();
	assert_int_equal(run_with(slice_of(input, sizeof input)), 0);
	/* The session is not known yet: the socket is the only way. */
	buf_deinit(&net.sent);
	assert_int_equal(sandbox_signal(sandbox, "TERM"), 0);
	assert_true(sent("t:{\"type\":\"signal\",\"signal\":\"TERM\"}\n"));
	ack();
	assert_int_equal(sandbox_signal(sandbox, "KILL"), 0);
	assert_true(said("kill:sg-1/x/42/KILL "));
	assert_true(sent(""));
	seen.kill_result = -EBUSY;
	assert_int_equal(sandbox_signal(sandbox, "KILL"), 0);
	assert_true(sent("t:{\"type\":\"signal\",\"signal\":\"KILL\"}\n"));
}

static void test_pause(void **state UNUSED)
{
	open_control();
	seen.on_output = PAUSE;
	assert_int_equal(run(), 0);
	ack();
	FRAME("\001a");
	assert_true(net.paused);
	sandbox_resume(sandbox);
	assert_false(net.paused);
	FRAME("\001b");
	assert_true(net.paused);
	/* The peer's exit frame was read before the pause: the pause does not outlive the command. */
	FRAME("\003\000");
	assert_false(net.paused);
	assert_true(said("out:a out:b exit:0 "));
	complete();
	assert_int_equal(run(), 0);
	assert_false(net.paused);
}

/* --- the keepalive --- */

static void test_keepalive(void **state UNUSED)
{
	options.keepalive_ms = 1;
	options.keepalive_timeout_ms = 5000;
	open_control();
	for (int i = 0; i < 2; i++) {
		wait_for_sending();
		assert_true(sent(i ? PROBE("2") : PROBE("1")));
		ack();
		FRAME("\001ignored");
		FRAME("\003\000");
		complete();
	}
	assert_true(said(""));
}

static void test_command_behind_a_keepalive(void **state UNUSED)
{
	options.keepalive_ms = 1;
	options.keepalive_timeout_ms = 5000;
	open_control();
	wait_for_sending();
	assert_true(sent(PROBE("1")));
	assert_int_equal(run(), 0);
	assert_int_equal(run(), SANDBOX_E_BUSY);
	sandbox_pause(sandbox);
	assert_false(net.paused); /* or the keepalive would never end */
	ack();
	FRAME("\003\000");
	assert_true(sent(""));
	complete();
	assert_true(sent(START_SH("2") "b:4 \n"));
	assert_true(net.paused);
	sandbox_resume(sandbox);
	ack();
	FRAME("\003\005");
	assert_true(said("exit:5 "));
}

static void begin_keepalive(void)
{
	options.keepalive_ms = 1;
	open_control();
	wait_for_sending();
	assert_true(sent(PROBE("1")));
}

static void test_keepalive_fails(void **state UNUSED)
{
	options.keepalive_timeout_ms = 5000;
	begin_keepalive();
	cut();
	assert_true(said("lost "));
	sandbox_close(sandbox);
	begin_keepalive();
	ack();
	FRAME("\003\001");
	assert_true(said("lost "));
	sandbox_close(sandbox);
	begin_keepalive();
	assert_int_equal(run(), 0);
	cut();
	assert_true(said("unrun "));
	sandbox_close(sandbox);
	begin_keepalive();
	assert_int_equal(run(), 0);
	FRAME("\003\001");
	assert_true(said("unrun "));
}

static void test_keepalive_is_not_answered(void **state UNUSED)
{
	options.keepalive_timeout_ms = 1;
	begin_keepalive();
	wait_for_words();
	assert_true(said("lost "));
	sandbox_close(sandbox);
	begin_keepalive();
	assert_int_equal(run(), 0);
	wait_for_words();
	assert_true(said("unrun "));
}

/* --- a command that is waited for --- */

#define WAIT(id) START(id, "\"/tmp/.spritegate/shim\",\"wait\"", "/tmp/.spritegate/shim")

static int run_ahead(bool more)
{
	static const char *const argv[] = {"sh", "-c", "x"};
	struct sandbox_command command = {.argv = argv, .argc = 3, .input = SLICE("in"), .input_ahead = SLICE("all"), .more_input = more};
	return sandbox_run(sandbox, &command, &events, NULL);
}

static void start_ahead(void)
{
	options.ahead = true;
	open_control();
	sandbox_set_shim(sandbox, true);
	sandbox_start_ahead(sandbox);
	assert_true(sent(""));
	wait_for_sending();
	assert_true(sent(WAIT("1")));
}

static void test_ahead(void **state UNUSED)
{
	start_ahead();
	ack();
	assert_int_equal(run_ahead(false), 0);
	assert_true(sent("b:0 all\nb:4 \n"));
	assert_int_equal(run(), SANDBOX_E_BUSY);
	assert_false(sandbox_has_started(sandbox));
	text("{\"type\":\"session_info\",\"session_id\":\"43\"}");
	assert_false(sandbox_has_started(sandbox));
	FRAME("\001a");
	assert_true(sandbox_has_started(sandbox));
	assert_int_equal(sandbox_signal(sandbox, "TERM"), 0);
	assert_true(sent("t:{\"type\":\"signal\",\"signal\":\"TERM\"}\n"));
	FRAME("\003\003");
	assert_true(said("out:a exit:3 "));
	/* Nothing waits for another one, which finds none that it is for. */
	complete();
	uv_run(&loop, UV_RUN_NOWAIT);
	assert_true(sent(""));
	assert_int_equal(run_ahead(false), 0);
	assert_true(sent(START_SH("2") "b:0 in\nb:4 \n"));
}

static void test_ahead_with_more_input(void **state UNUSED)
{
	start_ahead();
	ack();
	assert_true(said(""));
	assert_int_equal(run_ahead(true), 0);
	assert_int_equal(sandbox_feed(sandbox, SLICE("more")), 4);
	sandbox_end_input(sandbox);
	assert_true(sent("b:0 all\nb:0 more\nb:4 \n"));
}

/* Before the acknowledgement it waits for that. */
static void test_ahead_is_still_starting(void **state UNUSED)
{
	options.keepalive_ms = 60000;
	options.keepalive_timeout_ms = 5000;
	start_ahead();
	assert_int_equal(run_ahead(true), 0);
	assert_int_equal(sandbox_feed(sandbox, SLICE("more")), 0);
	assert_int_equal(sandbox_signal(sandbox, "TERM"), 0);
	assert_true(sent(""));
	ack();
	assert_true(said("more "));
	assert_int_equal(sandbox_feed(sandbox, SLICE("more")), 4);
	sandbox_end_input(sandbox);
	assert_true(sent("b:0 all\nt:{\"type\":\"signal\",\"signal\":\"TERM\"}\nb:0 more\nb:4 \n"));
	FRAME("\001a");
	FRAME("\003\217");
	assert_true(said("out:a exit:143 "));
}

/* The command is at hand before it: it is started as ever. */
static void test_too_late_to_start_ahead(void **state UNUSED)
{
	options.ahead = true;
	open_control();
	sandbox_set_shim(sandbox, true);
	sandbox_start_ahead(sandbox);
	assert_int_equal(run_ahead(false), 0);
	assert_true(sent(START_SH("1") "b:0 in\nb:4 \n"));
	ack();
	FRAME("\003\000");
	complete();
	uv_run(&loop, UV_RUN_NOWAIT);
	assert_true(sent(""));
	assert_true(said("exit:0 "));
}

static void test_not_ahead(void **state UNUSED)
{
	for (int i = 0; i < 2; i++) {
		options.ahead = i;
		open_control();
		sandbox_set_shim(sandbox, !i);
		sandbox_start_ahead(sandbox);
		uv_run(&loop, UV_RUN_NOWAIT);
		assert_true(sent(""));
		sandbox_close(sandbox);
	}
}

/* One that cannot be told its command lets another take its place. */
static void test_command_that_ahead_is_not_for(void **state UNUSED)
{
	options.keepalive_timeout_ms = 5000;
	start_ahead();
	ack();
	assert_int_equal(run(), 0);
	assert_true(sent("b:4 \n"));
	FRAME("\003\175");
	assert_true(said(""));
	complete();
	assert_true(sent(START_SH("2") "b:4 \n"));
}

static void test_command_that_ahead_is_not_for_while_it_starts(void **state UNUSED)
{
	options.keepalive_ms = 100;
	options.keepalive_timeout_ms = 1;
	start_ahead();
	assert_int_equal(run(), 0);
	assert_true(sent("b:4 \n"));
	ack();
	/* It does not end. */
	wait_for_words();
	assert_true(said("unrun "));
}

static void test_ahead_is_renewed(void **state UNUSED)
{
	options.keepalive_ms = 1;
	options.keepalive_timeout_ms = 5000;
	start_ahead();
	ack();
	wait_for_sending();
	assert_true(sent("b:4 \n"));
	/* Too late for it. */
	assert_int_equal(run_ahead(false), 0);
	assert_true(sent(""));
	FRAME("\003\175");
	complete();
	assert_true(sent(START_SH("2") "b:0 in\nb:4 \n"));
	ack();
	FRAME("\003\000");
	assert_true(said("exit:0 "));
	sandbox_close(sandbox);
	start_ahead();
	ack();
	wait_for_sending();
	assert_true(sent("b:4 \n"));
	FRAME("\003\175");
	complete();
	assert_true(sent(WAIT("2")));
	assert_true(said(""));
}

static void test_ahead_fails(void **state UNUSED)
{
	options.keepalive_timeout_ms = 5000;
	/* It was not told to end. */
	start_ahead();
	ack();
	FRAME("\003\177");
	assert_true(said("lost "));
	sandbox_close(sandbox);
	start_ahead();
	ack();
	cut();
	assert_true(said("lost "));
	sandbox_close(sandbox);
	/* Nothing of the command was handed over. */
	start_ahead();
	ack();
	net.holding = true;
	assert_int_equal(run_ahead(false), 0);
	cut();
	assert_true(said("unrun "));
	sandbox_close(sandbox);
	buf_deinit(&net.sent);
	net.holding = false;
	start_ahead();
	ack();
	assert_int_equal(run_ahead(false), 0);
	cut();
	assert_true(said("doubt "));
	buf_deinit(&net.sent);
	sandbox_close(sandbox);
	/* What ended may not have got the command yet. */
	start_ahead();
	ack();
	assert_int_equal(run_ahead(false), 0);
	assert_true(sent("b:0 all\nb:4 \n"));
	FRAME("\003\211");
	assert_true(said("doubt "));
	sandbox_close(sandbox);
	/* What is refused had started. */
	start_ahead();
	ack();
	assert_int_equal(run_ahead(false), 0);
	assert_true(sent("b:0 all\nb:4 \n"));
	text("control:{\"type\":\"op.error\",\"id\":\"\",\"args\":{\"code\":\"op.busy\"}}");
	assert_true(said("doubt "));
}

static void test_ahead_does_not_start(void **state UNUSED)
{
	options.keepalive_timeout_ms = 1;
	start_ahead();
	assert_int_equal(run_ahead(false), 0);
	wait_for_words();
	assert_true(said("unrun "));
}

static void test_ahead_ends_with_the_channel(void **state UNUSED)
{
	start_ahead();
	ack();
	sandbox_close(sandbox);
	assert_true(sent("b:4 \n"));
	assert_true(said(""));
}

/* --- commands on sockets of their own --- */

static void test_exec(void **state UNUSED)
{
	open_exec();
	assert_int_equal(run_with(SLICE("in")), 0);
	assert_string_equal(net.url, "ws://api/v1/sprites/sg-1%2Fx/exec?cmd=sh&cmd=-c&cmd=x&path=sh&stdin=true");
	assert_true(sent(""));
	assert_int_equal(run(), SANDBOX_E_BUSY);
	assert_int_equal(sandbox_signal(sandbox, "TERM"), 0);
	net.open->events->on_open(net.open->ctx);
	assert_true(sent("b:0 in\nb:4 \nt:{\"type\":\"signal\",\"signal\":\"TERM\"}\n"));
	assert_false(sandbox_has_started(sandbox));
	text("{\"type\":\"session_info\",\"session_id\":\"42\"}");
	assert_true(sandbox_has_started(sandbox));
	FRAME("\001a");
	seen.on_exit = RUN_AGAIN;
	FRAME("\003\217");
	assert_true(said("out:a exit:143 "));
	assert_int_equal(net.closed, 2);
	assert_int_equal(net.opened, 3);
	seen.on_exit = KEEP;
	net.open->events->on_open(net.open->ctx);
	FRAME("\003\000");
	assert_true(said("exit:0 "));
	assert_null(net.open);
}

static void test_exec_refused(void **state UNUSED)
{
	static const struct {
		struct socket_refusal refusal;
		const char *said;
	} cases[] = {
		{{.status = 0, .request_sent = false}, "unrun "},
		{{.status = 0, .request_sent = true}, "doubt "},
		{{.status = 400, .request_sent = true}, "unrun "},
		{{.status = 404, .request_sent = true}, "unrun "},
		{{.status = 429, .request_sent = true}, "unrun "},
		{{.status = 503, .request_sent = true}, "unrun "},
		{{.status = 500, .request_sent = true}, "doubt "},
		{{.status = 502, .request_sent = true}, "doubt "},
		{{.status = 504, .request_sent = true}, "doubt "},
		{{.status = 200, .request_sent = true}, "doubt "},
		{{.status = 500, .request_sent = true, .from_agent = true}, "unrun "},
		{{.status = 502, .request_sent = true, .from_agent = true}, "doubt "},
		{{.status = 504, .request_sent = true, .from_agent = true}, "doubt "},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		open_exec();
		assert_int_equal(run(), 0);
		refuse(cases[i].refusal);
		assert_true(said(cases[i].said));
		assert_int_equal(run(), SANDBOX_E_LOST);
		sandbox_close(sandbox);
	}
}

static void test_exec_that_cannot_be_opened(void **state UNUSED)
{
	open_exec();
	net.refuse_open = -ENOMEM;
	assert_int_equal(run(), -ENOMEM);
	net.refuse_open = 0;
	assert_int_equal(run(), 0);
}

static void test_exec_too_long(void **state UNUSED)
{
	static char text_of_40_k[40001];
	const char *const argv[] = {"echo", text_of_40_k};
	struct sandbox_command command = {.argv = argv, .argc = 2};
	memset(text_of_40_k, 'x', sizeof text_of_40_k - 1);
	open_exec();
	assert_int_equal(sandbox_run(sandbox, &command, &events, NULL), SANDBOX_E_TOO_LONG);
	assert_null(net.open);
}

static void test_exec_keepalive(void **state UNUSED)
{
	options.keepalive_ms = 1;
	options.keepalive_timeout_ms = 5000;
	open_exec();
	while (!net.open)
		uv_run(&loop, UV_RUN_ONCE);
	assert_non_null(strstr(net.url, "/exec?cmd=true&path=true"));
	net.open->events->on_open(net.open->ctx);
	assert_int_equal(run(), 0);
	FRAME("\003\000");
	assert_non_null(net.open);
	assert_non_null(strstr(net.url, "/exec?cmd=sh&"));
	net.open->events->on_open(net.open->ctx);
	FRAME("\003\006");
	assert_true(said("exit:6 "));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(test_refused_dial),
		TEST(test_false_404),
		TEST(test_dial_that_cannot_begin),
		TEST(test_close_while_dialling),
		TEST(test_commands_one_after_another),
		TEST(test_next_command_waits_for_op_complete),
		TEST(test_results),
		TEST(test_cut_before_anything_was_handed_over),
		TEST(test_cut_while_idle),
		TEST(test_loss_before_somebody_listens),
		TEST(test_op_complete_never_comes),
		TEST(test_op_complete_never_comes_while_one_waits),
		TEST(test_close_in_callbacks),
		TEST(test_close_tells_nobody),
		TEST(test_input_in_pieces_with_back_pressure),
		TEST(test_input_that_comes_later),
		TEST(test_input_that_comes_while_a_command_waits),
		TEST(test_input_ends_with_the_command),
		TEST(test_no_memory_for_input),
		TEST(test_signals),
		TEST(test_signal_of_a_command_that_waits),
		TEST(test_signal_past_input_that_nobody_reads),
		TEST(test_pause),
		TEST(test_keepalive),
		TEST(test_command_behind_a_keepalive),
		TEST(test_keepalive_fails),
		TEST(test_keepalive_is_not_answered),
		TEST(test_ahead),
		TEST(test_ahead_with_more_input),
		TEST(test_ahead_is_still_starting),
		TEST(test_too_late_to_start_ahead),
		TEST(test_not_ahead),
		TEST(test_command_that_ahead_is_not_for),
		TEST(test_command_that_ahead_is_not_for_while_it_starts),
		TEST(test_ahead_is_renewed),
		TEST(test_ahead_fails),
		TEST(test_ahead_does_not_start),
		TEST(test_ahead_ends_with_the_channel),
		TEST(test_exec),
		TEST(test_exec_refused),
		TEST(test_exec_that_cannot_be_opened),
		TEST(test_exec_too_long),
		TEST(test_exec_keepalive),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
