/*
 * cli_common - what the words of the command line share
 */
#pragma once

#include "policy/cli.h"
#include "policy/cli_show.h"
#include "policy/flags.h"

#define CLI_EXIT_USAGE 2

struct cli {
	const struct policy_cli_options *options;
	const char *noun, *verb; /* as typed, for messages */
	struct store *store;
	/* The policy that was loaded last: lists ask for the same one again and again. */
	char policy_name[RECORD_NAME_MAX + 1];
	struct record policy;
	int policy_result;
};

/* One line on `err`; the exit status. */
int cli_fail(const struct cli *cli, const char *reason);
int cli_fail_usage(const struct cli *cli, const char *reason);
int cli_fail_store(const struct cli *cli, int result);

struct cli_verb {
	const char *name;
	int (*run)(struct cli *cli, int argc, char **argv); /* the words after the verb; the exit status */
};

/* What cli->verb names, or `usage` where it belongs; the exit status. */
int cli_run_verb(struct cli *cli, int argc, char **argv, const char *usage, const struct cli_verb *verbs, size_t count);

/* The rules that hold for a token: its own over its policy's. 0, STORE_E_MISSING (no such policy), or another result of the store. */
MUST_CHECK int cli_rules_of(struct cli *cli, const struct record *own, struct record *rules);

/* Asks the person at the terminal whether `count` of `what` are meant; programs say --yes. 0, or the exit status. */
int cli_confirm(const struct cli *cli, size_t count, const char *what);

/* Ends what runs under these tokens, which take no new commands any more, and waits until it is seen to be gone; the exit status. */
int cli_kill_of_kids(struct cli *cli, char **kids, size_t count, bool json);

/* --- cli_transfer.c --- */

int cli_token_export(struct cli *cli, int argc, char **argv);
int cli_token_import(struct cli *cli, int argc, char **argv);

int cli_policy(struct cli *cli, int argc, char **argv);
int cli_lease(struct cli *cli, int argc, char **argv);
int cli_pool(struct cli *cli, int argc, char **argv);
int cli_session(struct cli *cli, int argc, char **argv);
