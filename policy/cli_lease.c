#include "policy/cli_common.h"

#include "gateway/base/clock.h"
#include "policy/limits.h"

#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#define KILL_WAIT_MS 5000 /* gateways ask every 300 ms; what takes longer is told as such */
#define KILL_POLL_MS 50

struct found {
	store_name kid;
	struct store_lease lease;
	bool gone;
};

/* What is there of the leases of some kids, grown as they are read. */
struct lease_list {
	struct found *found;
	size_t count;
};

static void free_leases(struct lease_list *list)
{
	free(list->found);
}

static int add_leases(struct cli *cli, const char *kid, struct lease_list *list)
{
	CLEANUP(free_ptr) struct store_lease *leases = NULL;
	size_t count = 0;
	int r = store_leases(cli->store, slice_str(kid), &leases, &count);
	if (r)
		return r;
	struct found *grown = realloc(list->found, (list->count + count + 1) * sizeof *grown);
	if (!grown)
		return STORE_E_REDIS;
	list->found = grown;
	for (size_t i = 0; i < count; i++) {
		struct found *new = &grown[list->count++];
		*new = (struct found){.lease = leases[i]};
		snprintf(new->kid, sizeof new->kid, "%s", kid);
	}
	return 0;
}

/* Callers that have no token have no record that names the actor either: its own list does. */
static int keep_of_actor(struct cli *cli, const char *actor, struct lease_list *list)
{
	CLEANUP(free_ptr) struct store_lease *leases = NULL;
	size_t count = 0, kept = 0;
	int r = store_actor_leases(cli->store, slice_str(actor), &leases, &count);
	for (size_t i = 0; r == 0 && i < list->count; i++)
		if (store_find_lease(leases, count, list->found[i].lease.id))
			list->found[kept++] = list->found[i];
	list->count = kept;
	return r;
}

/* Of everybody; `actor` may be NULL. */
static int find_leases(struct cli *cli, const char *actor, struct lease_list *list)
{
	CLEANUP(free_ptr) store_name *kids = NULL;
	size_t count = 0;
	int r = store_list(cli->store, STORE_LEASES, &kids, &count);
	for (size_t i = 0; r == 0 && i < count; i++)
		r = add_leases(cli, kids[i], list);
	return r == 0 && actor ? keep_of_actor(cli, actor, list) : r;
}

/* --- list ------------------------------------------------------------------------- */

static void print_lease(const struct cli *cli, const struct found *found, bool json, bool first)
{
	char since[25], end[25], granted[LIMITS_TEXT_LEN + 1];
	clock_format(found->lease.since_ms, since);
	clock_format(found->lease.end_ms, end);
	limits_write_duration(found->lease.granted_ms, granted);
	if (json)
		fprintf(cli->options->out,
			"%s{\"lease\":\"%s\",\"kid\":\"%s\",\"since\":\"%s\",\"granted_ms\":%" PRIu64 ",\"ends\":\"%s\"}",
			first ? "[" : ",\n ", found->lease.id, found->kid, since, found->lease.granted_ms, end);
	else
		fprintf(cli->options->out, "%-24s  %-16s  %-24s  %-8s  %s\n", found->lease.id, found->kid, since, granted, end);
}

static int by_age(const void *a, const void *b)
{
	const struct found *one = a, *other = b;
	uint64_t first = one->lease.since_ms, second = other->lease.since_ms;
	return first != second ? (first < second ? -1 : 1) : strcmp(one->lease.id, other->lease.id);
}

static int run_list(struct cli *cli, int argc, char **argv)
{
	CLEANUP(free_leases) struct lease_list list = {0};
	bool json = argc == 1 && strcmp(argv[0], "--json") == 0;
	if (argc != json)
		return cli_fail_usage(cli, "takes --json only");
	int r = find_leases(cli, NULL, &list);
	if (r)
		return cli_fail_store(cli, r);
	if (!json)
		fprintf(cli->options->out, "%-24s  %-16s  %-24s  %-8s  %s\n", "LEASE", "KID", "SINCE", "GRANTED", "ENDS");
	if (list.count)
		qsort(list.found, list.count, sizeof *list.found, by_age);
	for (size_t i = 0; i < list.count; i++)
		print_lease(cli, &list.found[i], json, i == 0);
	if (json)
		fputs(list.count ? "]\n" : "[]\n", cli->options->out);
	return EXIT_SUCCESS;
}

/* --- kill ------------------------------------------------------------------------- */

/* A lease past its end counts as gone: it is only waiting to be charged. Those of one kid are asked for together. */
static int look_again(struct cli *cli, struct lease_list *list, size_t *left)
{
	CLEANUP(free_ptr) struct store_lease *leases = NULL;
	const char *kid = "";
	size_t count = 0;
	uint64_t now;
	int r = store_now(cli->store, &now);
	*left = 0;
	for (size_t i = 0; r == 0 && i < list->count; i++) {
		struct found *found = &list->found[i];
		if (found->gone)
			continue;
		if (strcmp(kid, found->kid) != 0) {
			free(TAKE(leases));
			kid = found->kid;
			r = store_leases(cli->store, slice_str(kid), &leases, &count);
		}
		const struct store_lease *still = r == 0 ? store_find_lease(leases, count, found->lease.id) : NULL;
		found->gone = r == 0 && (!still || still->end_ms <= now);
		*left += !found->gone;
	}
	return r;
}

static void tell_killed(const struct cli *cli, const struct found *found, bool json)
{
	char end[25];
	clock_format(found->lease.end_ms, end);
	if (json)
		fprintf(cli->options->out, "{\"lease\":\"%s\",\"kid\":\"%s\",\"gone\":%s}\n", found->lease.id, found->kid,
			found->gone ? "true" : "false");
	else if (found->gone)
		fprintf(cli->options->out, "%s of %s is gone\n", found->lease.id, found->kid);
	else
		fprintf(cli->options->out, "%s of %s is still there: its gateway does not answer; it ends by itself at %s\n",
			found->lease.id, found->kid, end);
}

/* Waits until what was marked has been given back: its gateway has then sent KILL, or the command had ended. It does not wait for the
 * process, which cannot be seen from here. */
static int see_them_go(struct cli *cli, struct lease_list *list, bool json)
{
	const struct timespec pause = {.tv_nsec = KILL_POLL_MS * 1000000L};
	uint64_t end_us = clock_mono_us() + KILL_WAIT_MS * 1000;
	size_t left = list->count;
	int r = look_again(cli, list, &left);
	while (r == 0 && left && clock_mono_us() < end_us) {
		(void)nanosleep(&pause, NULL);
		r = look_again(cli, list, &left);
	}
	if (r)
		return cli_fail_store(cli, r);
	for (size_t i = 0; i < list->count; i++)
		tell_killed(cli, &list->found[i], json);
	return left ? EXIT_FAILURE : EXIT_SUCCESS;
}

int cli_kill_of_kids(struct cli *cli, char **kids, size_t count, bool json)
{
	CLEANUP(free_leases) struct lease_list list = {0};
	int r = 0;
	for (size_t i = 0; r == 0 && i < count; i++) {
		r = store_kill(cli->store, "kid", slice_str(kids[i]));
		r = r ? r : add_leases(cli, kids[i], &list);
	}
	return r ? cli_fail_store(cli, r) : see_them_go(cli, &list, json);
}

static int kill_all(struct cli *cli, struct lease_list *list, bool json)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < list->count; i++)
		r = store_kill(cli->store, "lease", slice_str(list->found[i].lease.id));
	return r ? cli_fail_store(cli, r) : see_them_go(cli, list, json);
}

/* Keeps those that are named; the exit status. */
static int pick(struct cli *cli, struct lease_list *list, char **names, int count)
{
	size_t kept = 0;
	int result = EXIT_SUCCESS;
	for (int n = 0; n < count; n++) {
		size_t i = kept;
		while (i < list->count && strcmp(list->found[i].lease.id, names[n]) != 0)
			i++;
		if (i == list->count) {
			fprintf(cli->options->err, "spritegate lease kill: there is no lease %s: its command may have ended\n", names[n]);
			result = EXIT_FAILURE;
			continue;
		}
		struct found swap = list->found[kept];
		list->found[kept++] = list->found[i];
		list->found[i] = swap;
	}
	list->count = kept;
	return result;
}

struct kill_words {
	const char *kid, *actor;
	bool all, yes, json;
	int names; /* of leases, moved to the front of argv */
};

static bool is_lease(const char *text)
{
	return strlen(text) == 24 && strspn(text, "0123456789abcdef") == 24;
}

static bool read_words(int argc, char **argv, struct kill_words *words)
{
	for (int i = 0; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			words->json = true;
		else if (strcmp(argv[i], "--yes") == 0)
			words->yes = true;
		else if (strcmp(argv[i], "--all") == 0)
			words->all = true;
		else if (strcmp(argv[i], "--kid") == 0 && i + 1 < argc && !words->kid && token_kid_or_identity(slice_str(argv[i + 1])))
			words->kid = argv[++i];
		else if (strcmp(argv[i], "--actor") == 0 && i + 1 < argc && !words->actor)
			words->actor = argv[++i];
		else if (is_lease(argv[i]))
			argv[words->names++] = argv[i];
		else
			return false;
	}
	return (words->names > 0) + (words->kid != NULL) + (words->actor != NULL) + words->all == 1;
}

static int run_kill(struct cli *cli, int argc, char **argv)
{
	struct kill_words words = {0};
	CLEANUP(free_leases) struct lease_list list = {0};
	if (!read_words(argc, argv, &words))
		return cli_fail_usage(
			cli,
			"needs a LEASE (24 digits, see `spritegate lease list`) or several, or one of --kid KID, --actor NAME and --all; "
			"[--yes] [--json]");
	int r = words.kid ? add_leases(cli, words.kid, &list) : find_leases(cli, words.actor, &list);
	if (r)
		return cli_fail_store(cli, r);
	int picked = words.names ? pick(cli, &list, argv, words.names) : EXIT_SUCCESS;
	if (!words.names && !list.count)
		return cli_fail(cli, "no command is running there");
	r = words.names || words.yes ? 0 : cli_confirm(cli, list.count, words.all ? "commands of everybody" : "commands");
	if (r == 0)
		r = kill_all(cli, &list, words.json);
	return r ? r : picked;
}

int cli_lease(struct cli *cli, int argc, char **argv)
{
	static const char usage[] =
		"usage: spritegate lease list [--json]            commands that are running, or were and are not settled\n"
		"       spritegate lease kill LEASE… [--json]     ends them on whatever gateway they run, within a second\n"
		"       spritegate lease kill --kid KID | --actor NAME | --all [--yes] [--json]\n"
		"A command that is killed is answered as canceled, with what it printed so far. `gone` means that its gateway has sent KILL, or never\n"
		"started it, and has given the lease back. Exit status 1: one was not seen to go in 5 s.\n";
	static const struct cli_verb verbs[] = {{"list", run_list}, {"kill", run_kill}};
	return cli_run_verb(cli, argc, argv, usage, verbs, ARRAY_LEN(verbs));
}
