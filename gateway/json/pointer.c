#include "gateway/json/pointer.h"

#include <stdio.h>

#define MAX_DEPTH 64

struct level {
	bool array;
	size_t index;
	struct slice name; /* as it stands between its quotes; no data: none yet */
};

/* Where in the text we are; what is nested deeper than MAX_DEPTH counts as its container. */
struct path {
	struct level levels[MAX_DEPTH];
	size_t depth;
	bool wants_name;
};

void json_pointer_add(char pointer[JSON_POINTER_LEN], struct slice name)
{
	size_t len = strlen(pointer);
	if (len + 2 > JSON_POINTER_LEN)
		return;
	pointer[len++] = '/';
	for (size_t i = 0; i < name.len && len + 3 < JSON_POINTER_LEN; i++) {
		char c = name.data[i];
		if (c == '~' || c == '/')
			pointer[len++] = '~';
		pointer[len++] = (char)(c == '~' ? '0' : c == '/' ? '1' : c);
	}
	pointer[len] = '\0';
}

/* The string whose opening quote is at *i; *i moves to its closing quote, or to the end. */
static struct slice skip_string(struct slice text, size_t *i)
{
	size_t start = *i + 1;
	for (++*i; *i < text.len && text.data[*i] != '"'; ++*i)
		if (text.data[*i] == '\\')
			++*i;
	size_t end = *i < text.len ? *i : text.len;
	return slice_of(text.data + start, end - start);
}

static void step(struct path *path, char c)
{
	struct level *top = path->depth && path->depth <= MAX_DEPTH ? &path->levels[path->depth - 1] : NULL;
	bool opens = c == '{' || c == '[';
	if (opens && path->depth < MAX_DEPTH)
		path->levels[path->depth] = (struct level){.array = c == '['};
	if (opens)
		path->depth++;
	else if ((c == '}' || c == ']') && path->depth)
		path->depth--;
	else if (c == ',' && top) {
		top->index++;
		top->name = (struct slice){0};
	}
	if (opens || c == '}' || c == ']' || c == ',')
		path->wants_name = c == '{' || (c == ',' && top && !top->array);
}

static void write_path(const struct path *path, char pointer[JSON_POINTER_LEN])
{
	pointer[0] = '\0';
	for (size_t i = 0; i < path->depth && i < MAX_DEPTH; i++) {
		const struct level *level = &path->levels[i];
		char index[24];
		snprintf(index, sizeof index, "%zu", level->index);
		if (level->array)
			json_pointer_add(pointer, slice_str(index));
		else if (level->name.data && !memchr(level->name.data, '\\', level->name.len))
			json_pointer_add(pointer, level->name);
		else
			return;
	}
}

void json_pointer_at(struct slice before, char pointer[JSON_POINTER_LEN])
{
	struct path path = {.depth = 0};
	for (size_t i = 0; i < before.len; i++) {
		if (before.data[i] != '"') {
			step(&path, before.data[i]);
			continue;
		}
		struct slice string = skip_string(before, &i);
		if (path.wants_name && path.depth <= MAX_DEPTH)
			path.levels[path.depth - 1].name = string;
		path.wants_name = false;
	}
	write_path(&path, pointer);
}
