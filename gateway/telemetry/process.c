#include "gateway/telemetry/process.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static uint64_t count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	if (!dir)
		return 0;
	uint64_t n = 0;
	while (readdir(dir))
		n++;
	closedir(dir);
	return n < 3 ? 0 : n - 3; /* ".", ".." and the directory's own */
}

static void collect_memory(struct metrics_shard *shard)
{
	unsigned long long pages = 0, resident = 0;
	FILE *file = fopen("/proc/self/statm", "re");
	if (!file)
		return;
	if (fscanf(file, "%llu %llu", &pages, &resident) == 2) {
		uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
		metrics_set(shard, METRIC_PROCESS_VIRTUAL_BYTES, METRICS_NONE, pages * page);
		metrics_set(shard, METRIC_PROCESS_RESIDENT_BYTES, METRICS_NONE, resident * page);
	}
	fclose(file);
}

/* Start time: field 22 of /proc/self/stat in clock ticks since boot, as seen from now. */
static void collect_start(struct metrics_shard *shard)
{
	char text[1024];
	FILE *file = fopen("/proc/self/stat", "re");
	if (!file)
		return;
	size_t n = fread(text, 1, sizeof text - 1, file);
	fclose(file);
	text[n] = '\0';
	const char *rest = strrchr(text, ')');
	unsigned long long ticks;
	if (!rest || sscanf(rest + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &ticks) != 1)
		return;
	struct timespec now, boot;
	clock_gettime(CLOCK_REALTIME, &now);
	clock_gettime(CLOCK_BOOTTIME, &boot);
	uint64_t since_boot_us = ticks * 1000000 / (uint64_t)sysconf(_SC_CLK_TCK);
	uint64_t boot_us = (uint64_t)(now.tv_sec - boot.tv_sec) * 1000000;
	metrics_set(shard, METRIC_PROCESS_START_SECONDS, METRICS_NONE, boot_us + since_boot_us);
}

static uint64_t timeval_us(struct timeval t)
{
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_usec;
}

void process_collect(struct metrics_shard *shard)
{
	struct rusage usage;
	if (getrusage(RUSAGE_SELF, &usage) == 0)
		metrics_set(shard, METRIC_PROCESS_CPU_SECONDS, METRICS_NONE, timeval_us(usage.ru_utime) + timeval_us(usage.ru_stime));
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
		metrics_set(shard, METRIC_PROCESS_MAX_FDS, METRICS_NONE, limit.rlim_cur);
	metrics_set(shard, METRIC_PROCESS_OPEN_FDS, METRICS_NONE, count_fds());
	collect_memory(shard);
	collect_start(shard);
}
