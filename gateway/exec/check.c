#include "gateway/exec/check.h"

#include "gateway/base/id.h"
#include "gateway/sprites/record.h"

#include <errno.h>
#include <stdio.h>

#define STDERR_MAX 512

/* One line for each stream: nonce, size, digest, "-", digest of the first $1 (then $2) bytes, "-". $3 finished the record. */
static const char measure[] = "IFS= read -r N && cd " RECORD_FOLDER " && read -r end <" RECORD_END " && [ \"$end\" = $3 ] || exit 125\n"
			      "for f in " RECORD_STDOUT " " RECORD_STDERR "; do\n"
			      "size=$(stat -c %s $f) whole=$(sha256sum <$f)\n"
			      "[ \"$size\" = $1 ] && arrived=$whole || arrived=$(head -c $1 $f | sha256sum)\n"
			      "echo $N $size $whole $arrived || exit; shift\n"
			      "done\n";

/* $3 bytes of $1 from $2 on, and on stderr nonce, digest, "-". */
static const char fetch[] = "IFS= read -r N && cd " RECORD_FOLDER " || exit 125\n"
			    "piece() { dd if=$1 iflag=skip_bytes,count_bytes skip=$2 count=$3 bs=64K status=none; }\n"
			    "piece \"$@\"; echo $N $(piece \"$@\" | sha256sum) >&2\n";

static const char *const files[] = {RECORD_STDOUT, RECORD_STDERR};

const char *check_verdict_name(enum check_verdict verdict)
{
	static const char *const names[] = {"none", "unverified", "counted", "verified", "recovered", "incomplete", "failed"};
	return names[verdict];
}

int check_init(struct check *check, struct output streams[2], const char *recorded_as)
{
	unsigned char bytes[CHECK_NONCE_LEN / 2];
	*check = (struct check){.streams = streams, .recorded_as = recorded_as, .piece = CHECK_PIECE};
	check->reply[0] = BUF_MAX(CHECK_PIECE + 1);
	check->reply[1] = BUF_MAX(STDERR_MAX);
	int r = id_random(bytes, sizeof bytes);
	for (size_t i = 0; r == 0 && i < sizeof bytes; i++)
		snprintf(check->nonce + 2 * i, 3, "%02x", bytes[i]);
	for (size_t i = 0; r == 0 && i < 2; i++)
		r = sha256_init(&check->digests[i]);
	if (r < 0)
		check_deinit(check);
	return r;
}

void check_deinit(struct check *check)
{
	for (size_t i = 0; i < 2; i++) {
		sha256_deinit(&check->digests[i]);
		buf_deinit(&check->reply[i]);
	}
}

int check_arrived(struct check *check, unsigned stream, struct slice bytes)
{
	return sha256_feed(&check->digests[stream], bytes);
}

/* No record helps: what is known is what was reported. `otherwise`: nothing of it is missing, or nothing was reported. */
static void count_only(struct check *check, enum check_verdict otherwise)
{
	bool more = false, less = false;
	check->verdict = otherwise;
	for (size_t i = 0; check->reported && i < 2; i++) {
		struct output *output = &check->streams[i];
		more |= output->total > check->sizes[i];
		less |= output->total < check->sizes[i];
		output->lost = output->total < check->sizes[i] ? check->sizes[i] - output->total : 0;
	}
	if (more || less)
		check->verdict = more ? CHECK_FAILED : CHECK_INCOMPLETE;
}

bool check_ended(struct check *check, const uint64_t sizes[2], uint64_t least)
{
	bool many = false, too_many = false, differs = !sizes;
	check->reported = sizes;
	for (size_t i = 0; i < 2; i++) {
		uint64_t total = check->streams[i].total;
		check->sizes[i] = sizes ? sizes[i] : total;
		many |= total >= least;
		too_many |= check->sizes[i] > RECORD_MAX;
		differs |= total != check->sizes[i];
	}
	if (too_many)
		count_only(check, sizes ? CHECK_COUNTED : CHECK_UNVERIFIED);
	else if (!many && !differs)
		check->verdict = CHECK_COUNTED;
	return !too_many && (many || differs);
}

void check_without_record(struct check *check)
{
	if (check->streams[0].total >= CHECK_SUSPECT || check->streams[1].total >= CHECK_SUSPECT)
		check->verdict = CHECK_UNVERIFIED;
}

/* --- what to run ------------------------------------------------------------------------------ */

static void set_command(struct check *check, struct check_command *command, const char *script, const char *file, uint64_t a, uint64_t b)
{
	*command = (struct check_command){.argv = {"bash", "-c", script, "spritegate"}, .argc = 4};
	snprintf(command->numbers[0], sizeof command->numbers[0], "%llu", (unsigned long long)a);
	snprintf(command->numbers[1], sizeof command->numbers[1], "%llu", (unsigned long long)b);
	if (file)
		command->argv[command->argc++] = file;
	command->argv[command->argc++] = command->numbers[0];
	command->argv[command->argc++] = command->numbers[1];
	int len = snprintf(command->line, sizeof command->line, "%s\n", check->nonce);
	command->input = slice_of(command->line, (size_t)len);
	buf_deinit(&check->reply[0]);
	buf_deinit(&check->reply[1]);
}

static bool is_complete(const struct check *check, unsigned stream)
{
	return check->streams[stream].total == check->records[stream].size;
}

/* Up to the cap everything is kept; beyond it what comes next depends on output_skip. */
static uint64_t next_piece(const struct check *check, const struct output *output, uint64_t size)
{
	uint64_t end = output->total < output->cap && output->cap < size ? output->cap : size;
	return end - output->total < check->piece ? end - output->total : check->piece;
}

bool check_next(struct check *check, struct check_command *command)
{
	if (check->verdict != CHECK_NONE && check->verdict != CHECK_RECOVERED)
		return false;
	if (!check->measured) {
		set_command(check, command, measure, NULL, check->streams[0].total, check->streams[1].total);
		command->argv[command->argc++] = check->recorded_as;
		return true;
	}
	for (unsigned i = 0; i < 2; i++) {
		struct output *output = &check->streams[i];
		uint64_t size = check->records[i].size;
		check->skipped[i] |= output_skip(output, size);
		if (output->total == size)
			continue;
		check->fetching = i;
		check->wanted = next_piece(check, output, size);
		set_command(check, command, fetch, files[i], output->total, check->wanted);
		return true;
	}
	return false;
}

/* --- what it says ----------------------------------------------------------------------------- */

int check_reply(struct check *check, unsigned stream, struct slice bytes)
{
	struct buf *reply = &check->reply[stream];
	/* Too much is as wrong as too little. */
	if (bytes.len > reply->max - reply->len)
		bytes.len = reply->max - reply->len;
	return buf_append(reply, bytes);
}

static bool take_word(struct slice *line, struct slice *word)
{
	return slice_next(line, ' ', word) && word->len;
}

static bool take_digest(struct slice *line, char out[SHA256_HEX + 1])
{
	struct slice digest, dash;
	if (!take_word(line, &digest) || digest.len != SHA256_HEX || !take_word(line, &dash) || !slice_equal(dash, SLICE("-")))
		return false;
	memcpy(out, digest.data, SHA256_HEX);
	out[SHA256_HEX] = '\0';
	return true;
}

static bool take_nonce(const struct check *check, struct slice *line)
{
	struct slice nonce;
	return take_word(line, &nonce) && slice_equal(nonce, slice_str(check->nonce));
}

static bool take_record(const struct check *check, struct slice line, struct check_record *record)
{
	struct slice size;
	return take_nonce(check, &line) && take_word(&line, &size) && slice_to_u64(size, INT64_MAX, &record->size) == 0 &&
	       take_digest(&line, record->whole) && take_digest(&line, record->arrived) && !line.len;
}

static bool take_records(struct check *check)
{
	struct slice text = buf_peek(&check->reply[0]), line;
	for (size_t i = 0; i < 2; i++)
		if (!slice_next(&text, '\n', &line) || !take_record(check, line, &check->records[i]))
			return false;
	return !text.len;
}

/* What arrived is the beginning of the record, all of it, or neither. */
static int compare(struct check *check, unsigned stream, bool *same)
{
	struct output *output = &check->streams[stream];
	const struct check_record *record = &check->records[stream];
	char arrived[SHA256_HEX + 1];
	int r = sha256_hex(&check->digests[stream], arrived);
	if (r < 0)
		return r;
	*same = strcmp(arrived, record->arrived) == 0;
	bool contradicts = output->total > record->size || (check->reported && check->sizes[stream] != record->size);
	if (contradicts || (output->pass && !*same && output->total == record->size))
		check->verdict = CHECK_FAILED;
	else if (check->verdict == CHECK_NONE && (!*same || output->total < record->size))
		check->verdict = CHECK_RECOVERED;
	return 0;
}

/* What is not how the record begins is fetched from the start, unless it was passed on. */
static int restart(struct check *check, unsigned stream)
{
	if (check->streams[stream].pass) {
		check->beyond_repair = true;
		return 0;
	}
	output_restart(&check->streams[stream]);
	return sha256_init(&check->digests[stream]);
}

static int compare_both(struct check *check)
{
	bool same[2];
	int r = compare(check, 0, &same[0]);
	if (r == 0)
		r = compare(check, 1, &same[1]);
	for (unsigned i = 0; r == 0 && check->verdict != CHECK_FAILED && i < 2; i++)
		if (!same[i])
			r = restart(check, i);
	return r;
}

static int finish_if_complete(struct check *check)
{
	for (unsigned i = 0; i < 2; i++) {
		char arrived[SHA256_HEX + 1];
		if (!is_complete(check, i))
			return 0;
		int r = sha256_hex(&check->digests[i], arrived);
		if (r < 0)
			return r;
		if (!check->skipped[i] && strcmp(arrived, check->records[i].whole) != 0) {
			check->verdict = CHECK_FAILED;
			return 0;
		}
	}
	if (check->verdict == CHECK_NONE)
		check->verdict = CHECK_VERIFIED;
	return 0;
}

static int measured(struct check *check, unsigned exit_code)
{
	if (exit_code || !take_records(check)) {
		count_only(check, CHECK_FAILED);
		return 0;
	}
	check->measured = true;
	int r = compare_both(check);
	if (r == 0 && (check->beyond_repair || check->verdict == CHECK_FAILED))
		check_give_up(check);
	return r < 0 || check->verdict == CHECK_FAILED || check->verdict == CHECK_INCOMPLETE ? r : finish_if_complete(check);
}

static bool is_piece(const struct check *check, struct slice bytes, const char *digest)
{
	struct slice text = buf_peek(&check->reply[1]), line;
	char said[SHA256_HEX + 1];
	return bytes.len == check->wanted && slice_next(&text, '\n', &line) && !text.len && take_nonce(check, &line) &&
	       take_digest(&line, said) && !line.len && strcmp(said, digest) == 0;
}

static int digest_of(struct slice bytes, char out[SHA256_HEX + 1])
{
	struct sha256 digest = {0};
	int r = sha256_init(&digest);
	if (r == 0)
		r = sha256_feed(&digest, bytes);
	if (r == 0)
		r = sha256_hex(&digest, out);
	sha256_deinit(&digest);
	return r;
}

static int fetched(struct check *check)
{
	struct slice bytes = buf_peek(&check->reply[0]);
	char digest[SHA256_HEX + 1];
	int r = digest_of(bytes, digest);
	if (r < 0)
		return r;
	if (!is_piece(check, bytes, digest)) {
		check->piece /= 2;
		if (check->piece < CHECK_PIECE_MIN)
			check_give_up(check);
		return 0;
	}
	r = output_feed(&check->streams[check->fetching], bytes);
	if (r == 0)
		r = sha256_feed(&check->digests[check->fetching], bytes);
	return r < 0 ? r : finish_if_complete(check);
}

int check_replied(struct check *check, unsigned exit_code)
{
	return check->measured ? fetched(check) : measured(check, exit_code);
}

void check_give_up(struct check *check)
{
	if (!check->measured || check->verdict == CHECK_FAILED) {
		count_only(check, CHECK_FAILED);
		return;
	}
	for (unsigned i = 0; i < 2; i++)
		if (!is_complete(check, i)) {
			check->streams[i].lost = check->records[i].size - check->streams[i].total;
			check->verdict = CHECK_INCOMPLETE;
		}
}
