#include "gateway/reload.h"

#include "gateway/base/log.h"
#include "gateway/serve.h"

#include <errno.h>
#include <stdlib.h>

static void log_faults(struct slice faults)
{
	struct slice line;
	while (faults.len && slice_next(&faults, '\n', &line))
		if (line.len)
			log_error("reload: %.*s", SLICE_FMT(line));
}

static int read_again(const char *file, struct config *fresh)
{
	CLEANUP(buf_deinit) struct buf faults = BUF_MAX(64 * 1024);
	int r = config_load(fresh, file, CONFIG_SERVE, &faults);
	if (r == 0)
		r = serve_check(fresh, &faults);
	log_faults(buf_peek(&faults));
	return r;
}

static void log_changes(const struct config *a, const struct config *b, enum config_reach reach, const char *what)
{
	CLEANUP(buf_deinit) struct buf names = BUF_MAX(8192);
	if (config_compare(a, b, reach, &names) == 0 && names.len)
		log_info("reload: %s: %.*s", what, SLICE_FMT(buf_peek(&names)));
}

struct config *reload_read(const char *file, const struct config *running, const struct config *live)
{
	struct config *fresh = calloc(1, sizeof *fresh);
	int r = fresh ? read_again(file, fresh) : -ENOMEM;
	if (r < 0) {
		log_error("reload: nothing was changed: %s", strerror(-r));
		reload_free(fresh, running);
		return NULL;
	}
	log_changes(live, fresh, CONFIG_LIVE, "changed");
	log_changes(running, fresh, CONFIG_FIXED, "waits for a restart");
	log_info("reload: done");
	return fresh;
}

void reload_free(const struct config *config, const struct config *running)
{
	struct config *own = (struct config *)(uintptr_t)config;
	if (!own || own == running)
		return;
	config_deinit(own);
	free(own);
}
