#include "gateway/confine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Each is tried in a process of its own: 0, or what is wrong as an exit status. */
static void in_a_child(int (*attempt)(void))
{
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0)
		_exit(confine_self() < 0 || confine_rights() < 0 || confine_calls() < 0 ? 99 : attempt());
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static bool is_refused(long result, int error)
{
	return result == -1 && errno == error;
}

static int start_programs(void)
{
	char name[] = "false", *const argv[] = {name, NULL};
	if (!is_refused(execv("/bin/false", argv), EPERM))
		return 1;
	if (!is_refused(syscall(SYS_execveat, AT_FDCWD, "/bin/false", argv, NULL, 0), EPERM))
		return 2;
	if (!is_refused(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0), ENOSYS))
		return 3;
	return is_refused(fork(), ENOSYS) ? 0 : 4;
}

static int touch_others(void)
{
	char byte;
	struct iovec here = {&byte, 1};
	if (!is_refused(ptrace(PTRACE_TRACEME, 0, 0, 0), EPERM))
		return 1;
	if (!is_refused(syscall(SYS_process_vm_readv, getpid(), &here, 1UL, &here, 1UL, 0UL), EPERM))
		return 2;
	if (!is_refused(kill(getppid(), 0), EPERM) || !is_refused(kill(getpid(), 0), EPERM))
		return 3;
	if (!is_refused(syscall(SYS_tgkill, getppid(), getppid(), 0), ENOSYS))
		return 4;
	return 0;
}

static int gain_rights(void)
{
	const struct rlimit limit = {1, 1};
	if (!is_refused(setuid(0), EPERM) || !is_refused(syscall(SYS_unshare, 0), EPERM) || !is_refused(syscall(SYS_bpf, 0, 0, 0), EPERM))
		return 1;
	if (!is_refused(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), ENOSYS) || !is_refused(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), ENOSYS))
		return 2;
	if (!is_refused(setrlimit(RLIMIT_CORE, &limit), ENOSYS))
		return 3;
	return is_refused(unlink("/nowhere"), EPERM) && is_refused(mkdir("/tmp/nothing", 0700), ENOSYS) ? 0 : 4;
}

static int open_sockets(void)
{
	static const int refused[] = {AF_PACKET, AF_ALG, AF_VSOCK, AF_KEY};
	static const int allowed[] = {AF_INET, AF_INET6, AF_UNIX};
	for (size_t i = 0; i < ARRAY_LEN(refused); i++)
		if (!is_refused(socket(refused[i], SOCK_RAW, 0), ENOSYS))
			return 1;
	if (!is_refused(socket(AF_NETLINK, SOCK_RAW, NETLINK_AUDIT), ENOSYS))
		return 2;
	/* A machine without IPv6 has its own error. */
	for (size_t i = 0; i < ARRAY_LEN(allowed); i++)
		if (socket(allowed[i], SOCK_STREAM | SOCK_CLOEXEC, 0) < 0 && errno != EAFNOSUPPORT)
			return 3;
	return 0;
}

static int run_what_was_written(void)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return 1;
	if (!is_refused(mprotect(page, 4096, PROT_READ | PROT_EXEC), ENOSYS))
		return 2;
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return page == MAP_FAILED && errno == ENOSYS ? 0 : 3;
}

static void *answer(void *arg)
{
	*(int *)arg = 42;
	return NULL;
}

/* What the gateway does all day: files, threads, names. */
static int go_on(void)
{
	int answered = 0;
	char byte;
	pthread_t thread;
	struct addrinfo *found = NULL;
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, &byte, 1) != 1 || close(fd) < 0)
		return 1;
	if (pthread_create(&thread, NULL, answer, &answered) != 0 || pthread_join(thread, NULL) != 0 || answered != 42)
		return 2;
	if (getaddrinfo("localhost", "80", NULL, &found) != 0)
		return 3;
	freeaddrinfo(found);
	void *memory = malloc(64 * 1024 * 1024);
	free(memory);
	return memory ? 0 : 4;
}

static _Atomic int step;

static void *confined_later(void *arg)
{
	char name[] = "false", *const argv[] = {name, NULL};
	while (step == 0)
		sched_yield();
	*(bool *)arg = is_refused(execv("/bin/false", argv), EPERM);
	return NULL;
}

/* One that ran before, too. */
static void test_every_thread(void **state UNUSED)
{
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		bool refused = false;
		pthread_t thread;
		if (pthread_create(&thread, NULL, confined_later, &refused) != 0 || confine_self() < 0 || confine_calls() < 0)
			_exit(99);
		step = 1;
		pthread_join(thread, NULL);
		_exit(refused ? 0 : 1);
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

/* What the filter would refuse anyway is tried without it. */
static int try_rights(void)
{
	struct __user_cap_header_struct own = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct has[_LINUX_CAPABILITY_U32S_3];
	if (confine_rights() < 0 || syscall(SYS_capget, &own, has) < 0)
		return 99;
	for (size_t i = 0; i < ARRAY_LEN(has); i++)
		if (has[i].effective || has[i].permitted || has[i].inheritable)
			return 1;
	has[0].effective = has[0].permitted = 1U << CAP_SYS_CHROOT;
	if (!is_refused(syscall(SYS_capset, &own, has), EPERM) || !is_refused(chroot("/"), EPERM))
		return 2;
	return 0;
}

static void test_rights(void **state UNUSED)
{
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0)
		_exit(try_rights());
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

#ifdef __x86_64__
static void *call_another_table(void *arg)
{
	syscall(0x40000000 | SYS_getpid); /* x32 */
	return arg;
}

/* All of it ends, not that thread. */
static void test_another_architecture(void **state UNUSED)
{
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		pthread_t thread;
		if (confine_self() < 0 || confine_calls() < 0 || pthread_create(&thread, NULL, call_another_table, NULL) != 0)
			_exit(99);
		pthread_join(thread, NULL);
		_exit(1);
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSYS);
}
#endif

static void test_start_programs(void **state UNUSED)
{
	in_a_child(start_programs);
}

static void test_touch_others(void **state UNUSED)
{
	in_a_child(touch_others);
}

static void test_gain_rights(void **state UNUSED)
{
	in_a_child(gain_rights);
}

static void test_open_sockets(void **state UNUSED)
{
	in_a_child(open_sockets);
}

static void test_run_what_was_written(void **state UNUSED)
{
	in_a_child(run_what_was_written);
}

static void test_go_on(void **state UNUSED)
{
	in_a_child(go_on);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_start_programs),       cmocka_unit_test(test_touch_others),
		cmocka_unit_test(test_gain_rights),          cmocka_unit_test(test_open_sockets),
		cmocka_unit_test(test_run_what_was_written), cmocka_unit_test(test_go_on),
		cmocka_unit_test(test_every_thread),         cmocka_unit_test(test_rights),
#ifdef __x86_64__
		cmocka_unit_test(test_another_architecture),
#endif
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
