#include "policy/cli_common.h"

#include "gateway/base/clock.h"

#include <inttypes.h>
#include <stdlib.h>

static void print_member(FILE *out, const struct store_member *member, bool json, bool first)
{
	char since[25], created[25];
	clock_format(member->since_ms, since);
	clock_format(member->created_ms, created);
	if (json)
		fprintf(out,
			"%s{\"sprite\":\"%s\",\"state\":\"%s\",\"session\":\"%s\",\"since\":\"%s\",\"created\":\"%s\","
			"\"uses\":%" PRIu64 ",\"exec_id\":\"%s\"}",
			first ? "[" : ",\n ", member->name, member->state, member->session, since, created, member->uses, member->exec_id);
	else
		fprintf(out, "%-50s  %-10s  %-24s  %-24s  %s\n", member->name, member->state, since, created, member->session);
}

static int run_list(struct cli *cli, int argc, char **argv)
{
	bool json = argc && strcmp(argv[argc - 1], "--json") == 0;
	const char *pool = argc - json == 1 ? argv[0] : cli->options->pool;
	if (argc - json > 1 || pool[0] == '-')
		return cli_fail_usage(cli, "takes a POOL and --json");
	if (!pool[0])
		return cli_fail_usage(cli, "needs a POOL");
	CLEANUP(free_ptr) struct store_member *members = NULL;
	size_t count = 0;
	int r = store_pool(cli->store, slice_str(pool), &members, &count);
	if (r)
		return cli_fail_store(cli, r);
	FILE *out = cli->options->out;
	if (!json)
		fprintf(out, "%-50s  %-10s  %-24s  %-24s  %s\n", "SPRITE", "STATE", "SINCE", "CREATED", "SESSION");
	for (size_t i = 0; i < count; i++)
		print_member(out, &members[i], json, i == 0);
	if (json)
		fputs(count ? "]\n" : "[]\n", out);
	return EXIT_SUCCESS;
}

int cli_pool(struct cli *cli, int argc, char **argv)
{
	static const char usage[] = "usage: spritegate pool list [POOL] [--json]       Sprites that gateways share, "
				    "and whose they are; POOL is SPRITEGATE_POOL_NAME\n";
	static const struct cli_verb verbs[] = {{"list", run_list}};
	return cli_run_verb(cli, argc, argv, usage, verbs, ARRAY_LEN(verbs));
}
