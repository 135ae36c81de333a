#include "gateway/confine.h"
#include "gateway/doctor.h"
#include "gateway/http/problem_types.h"
#include "gateway/http/request.h"
#include "gateway/revision.h"
#include "gateway/serve.h"
#include "policy/cli.h"

#include <errno.h>
#include <malloc.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define EXIT_USAGE 2

static const char help_text[] =
	"spritegate - runs an agent's commands in Fly Sprites, in front of Datasette\n"
	"\n"
	"  spritegate serve [--config FILE]           run the gateway\n"
	"  spritegate check-config [--config FILE]    check the settings and print them, without secrets\n"
	"  spritegate doctor [--json] [--config FILE] look at settings, Redis, Sprites and Datasette: what is wrong, what to do\n"
	"  spritegate token COMMAND …                 make and manage tokens (spritegate token --help)\n"
	"  spritegate policy COMMAND …                rules that tokens inherit (spritegate policy --help)\n"
	"  spritegate lease COMMAND …                 commands that are running, and ending them (spritegate lease --help)\n"
	"  spritegate session COMMAND …               named sessions that are kept, and closing them (spritegate session --help)\n"
	"  spritegate pool list [POOL]                Sprites that several gateways share, and whose they are\n"
	"  spritegate health [HOST:PORT]              exit 0 when the gateway there serves; default: the port of LISTEN\n"
	"  spritegate help config                     every setting, as Markdown\n"
	"  spritegate help manual                     the same as the manual page spritegate.conf(5)\n"
	"  spritegate help problems                   every error of the HTTP interface, as Markdown\n"
	"  spritegate version\n"
	"\n"
	"Settings come from the environment (SPRITEGATE_…) and from the file; the environment wins.\n"
	"Exit status: 0 done, 1 failed, 2 wrong use or settings.\n";

/* --config FILE, or nothing; -1 for anything else. */
static int read_options(int argc, char **argv, const char **file)
{
	*file = NULL;
	if (argc == 0)
		return 0;
	if (argc == 2 && strcmp(argv[0], "--config") == 0) {
		*file = argv[1];
		return 0;
	}
	fprintf(stderr, "spritegate: unknown argument \"%s\"; spritegate --help shows what is allowed\n", argv[0]);
	return -1;
}

static int load(struct config *config, const char *file, enum config_use use)
{
	CLEANUP(buf_deinit) struct buf faults = BUF_MAX(64 * 1024);
	int r = config_load(config, file, use, &faults);
	if (r == 0 && use == CONFIG_SERVE)
		r = serve_check(config, &faults);
	if (r == 0)
		return 0;
	if (faults.len)
		fprintf(stderr, "spritegate: the settings cannot be used:\n%.*s", SLICE_FMT(buf_peek(&faults)));
	else
		fprintf(stderr, "spritegate: the settings cannot be read: %s\n", strerror(-r));
	return r;
}

/* The buffers of large answers come and go with every request. Fetching their pages from the kernel each time made a 64 KiB answer twice
 * as expensive, so the allocator has them in its arenas and keeps this much of what is freed in each arena (one a thread). */
#define KEEP_FREED_BYTES (16 * 1024 * 1024)
#define MMAP_FROM_BYTES  (256 * 1024)
_Static_assert(HTTP_REQUEST_BUFFER < MMAP_FROM_BYTES, "the buffer of an answer comes from an arena");

static int command_serve(int argc, char **argv)
{
	mallopt(M_TRIM_THRESHOLD, KEEP_FREED_BYTES);
	mallopt(M_MMAP_THRESHOLD, MMAP_FROM_BYTES);
	const char *file;
	CLEANUP(config_deinit) struct config config;
	config_init(&config);
	if (read_options(argc, argv, &file) < 0 || load(&config, file, CONFIG_SERVE) < 0)
		return EXIT_USAGE;
	static const struct metrics_build identity = {.version = SPRITEGATE_VERSION, .revision = SPRITEGATE_REVISION};
	return serve(&config, file, &identity);
}

static int command_check(int argc, char **argv)
{
	const char *file;
	CLEANUP(config_deinit) struct config config;
	CLEANUP(buf_deinit) struct buf text = BUF_MAX(64 * 1024);
	config_init(&config);
	if (read_options(argc, argv, &file) < 0 || load(&config, file, CONFIG_SERVE) < 0)
		return EXIT_USAGE;
	if (config_print(&config, &text) < 0)
		return EXIT_FAILURE;
	printf("%.*s", SLICE_FMT(buf_peek(&text)));
	return EXIT_SUCCESS;
}

static int command_doctor(int argc, char **argv)
{
	const char *file;
	CLEANUP(config_deinit) struct config config;
	CLEANUP(buf_deinit) struct buf faults = BUF_MAX(64 * 1024);
	config_init(&config);
	bool json = argc > 0 && strcmp(argv[0], "--json") == 0;
	if (read_options(argc - json, argv + json, &file) < 0)
		return EXIT_USAGE;
	int r = config_load(&config, file, CONFIG_SERVE, &faults);
	if (r == 0)
		return doctor(&config, json);
	return doctor_settings_failed(faults.len ? buf_peek(&faults) : slice_str(strerror(-r)), json);
}

static int run_policy_cli(const char *noun, int argc, char **argv)
{
	CLEANUP(config_deinit) struct config config;
	config_init(&config);
	bool asks_help = argc == 0 || strcmp(argv[argc - 1], "--help") == 0;
	if (!asks_help && load(&config, NULL, CONFIG_TOKEN) < 0)
		return EXIT_USAGE;
	struct policy_cli_options options = {.redis_url = config.redis_url,
					     .pepper = &config.pepper,
					     .pool = config.pool_name ? config.pool_name : "",
					     .in = stdin,
					     .out = stdout,
					     .err = stderr};
	return policy_cli(noun, argc, argv, &options);
}

static int command_token(int argc, char **argv)
{
	return run_policy_cli("token", argc, argv);
}

static int command_policy(int argc, char **argv)
{
	return run_policy_cli("policy", argc, argv);
}

static int command_pool(int argc, char **argv)
{
	return run_policy_cli("pool", argc, argv);
}

static int command_session(int argc, char **argv)
{
	return run_policy_cli("session", argc, argv);
}

static int command_lease(int argc, char **argv)
{
	return run_policy_cli("lease", argc, argv);
}

static int connect_to(const char *host, const char *port)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
	struct timeval limit = {.tv_sec = 2};
	if (getaddrinfo(host, port, &hints, &found) != 0)
		return -1;
	int fd = -1;
	for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
		fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd < 0)
			continue;
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
		if (connect(fd, a->ai_addr, a->ai_addrlen) < 0) {
			close(fd);
			fd = -1;
		}
	}
	freeaddrinfo(found);
	return fd;
}

/* For container health checks, so that an image needs no HTTP client: one request, the status line is the answer. */
static int command_health(int argc, char **argv)
{
	static const char request[] = "GET /-/gateway/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
	const char *listen = getenv("SPRITEGATE_LISTEN"), *port = listen ? strrchr(listen, ':') : NULL;
	char here[32];
	snprintf(here, sizeof here, "127.0.0.1%.8s", port ? port : ":8080");
	const char *where = argc ? argv[0] : here;
	const char *colon = strrchr(where, ':');
	if (argc > 1 || !colon) {
		fprintf(stderr, "spritegate: health takes one HOST:PORT\n");
		return EXIT_USAGE;
	}
	struct slice name = slice_of(where, (size_t)(colon - where));
	if (name.len > 2 && name.data[0] == '[' && name.data[name.len - 1] == ']')
		name = slice_of(name.data + 1, name.len - 2);
	CLEANUP(free_ptr) char *host = slice_dup(name);
	char answer[16] = "";
	int fd = host ? connect_to(host, colon + 1) : -1;
	bool ok = fd >= 0 && write(fd, request, sizeof request - 1) == sizeof request - 1 && read(fd, answer, sizeof answer - 1) >= 12 &&
		  strncmp(answer, "HTTP/1.1 200", 12) == 0;
	if (fd >= 0)
		close(fd);
	if (!ok)
		fprintf(stderr, "spritegate: %s does not serve (%s)\n", where, *answer ? answer : "no answer");
	return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int command_help(int argc, char **argv)
{
	if (argc == 0) {
		fputs(help_text, stdout);
		return EXIT_SUCCESS;
	}
	CLEANUP(buf_deinit) struct buf text = BUF_MAX(64 * 1024);
	static const struct {
		const char *name;
		int (*write)(struct buf *out);
	} topics[] = {{"config", config_document}, {"manual", config_manual}, {"problems", http_problem_types_document}};
	size_t i = 0;
	while (i < ARRAY_LEN(topics) && strcmp(argv[0], topics[i].name) != 0)
		i++;
	if (i == ARRAY_LEN(topics)) {
		fprintf(stderr, "spritegate: there is help on: config, manual, problems\n");
		return EXIT_USAGE;
	}
	if (topics[i].write(&text) < 0)
		return EXIT_FAILURE;
	printf("%.*s", SLICE_FMT(buf_peek(&text)));
	return EXIT_SUCCESS;
}

static int command_version(int argc UNUSED, char **argv UNUSED)
{
	puts("spritegate " SPRITEGATE_VERSION " (revision " SPRITEGATE_REVISION ")");
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(int argc, char **argv);
	} commands[] = {
		{"serve", command_serve},       {"check-config", command_check}, {"token", command_token},   {"health", command_health},
		{"help", command_help},         {"--help", command_help},        {"-h", command_help},       {"version", command_version},
		{"--version", command_version}, {"doctor", command_doctor},      {"policy", command_policy}, {"lease", command_lease},
		{"pool", command_pool},         {"session", command_session},
	};
	int r = confine_self();
	if (r < 0) {
		fprintf(stderr, "spritegate: the process cannot be confined: %s\n", strerror(-r));
		return EXIT_FAILURE;
	}
	bool own_help = argc > 1 && (strcmp(argv[1], "token") == 0 || strcmp(argv[1], "policy") == 0 || strcmp(argv[1], "lease") == 0 ||
				     strcmp(argv[1], "session") == 0 || strcmp(argv[1], "pool") == 0);
	if (argc == 3 && strcmp(argv[2], "--help") == 0 && !own_help)
		return command_help(0, NULL);
	for (size_t i = 0; argc > 1 && i < ARRAY_LEN(commands); i++)
		if (strcmp(argv[1], commands[i].name) == 0)
			return commands[i].run(argc - 2, argv + 2);
	if (argc > 1)
		fprintf(stderr, "spritegate: unknown command \"%s\"\n\n", argv[1]);
	fputs(help_text, stderr);
	return EXIT_USAGE;
}
