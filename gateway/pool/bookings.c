#include "gateway/pool/bookings.h"

size_t bookings_ahead(const struct bookings *bookings, uint64_t tenant)
{
	size_t own = 0, ahead = 0;
	for (size_t i = 0; i < BOOKINGS_TENANTS; i++)
		if (bookings->tenants[i].tenant == tenant)
			own += bookings->tenants[i].count;
	for (size_t i = 0; i < BOOKINGS_TENANTS; i++) {
		const struct bookings_of *of = &bookings->tenants[i];
		if (of->tenant != tenant)
			ahead += of->count < own + 1 ? of->count : own + 1;
	}
	return own + ahead + (own + ahead) / 5;
}

/* NULL: it has none. */
static struct bookings_of *find(struct bookings *bookings, uint64_t tenant)
{
	for (size_t i = 0; i < BOOKINGS_TENANTS; i++)
		if (bookings->tenants[i].count && bookings->tenants[i].tenant == tenant)
			return &bookings->tenants[i];
	return NULL;
}

static struct bookings_of *find_free(struct bookings *bookings)
{
	for (size_t i = 0; i < BOOKINGS_TENANTS; i++)
		if (!bookings->tenants[i].count)
			return &bookings->tenants[i];
	return NULL;
}

void bookings_add(struct bookings *bookings, uint64_t tenant, uint64_t due_us)
{
	struct bookings_of *of = find(bookings, tenant);
	if (!of)
		of = find_free(bookings);
	if (!of || of->count == BOOKINGS_EACH)
		return;
	of->tenant = tenant;
	of->due_us[of->count++] = due_us;
}

static void drop(struct bookings_of *of, size_t i)
{
	of->due_us[i] = of->due_us[--of->count];
}

bool bookings_take(struct bookings *bookings, uint64_t tenant, uint64_t now_us)
{
	struct bookings_of *of = find(bookings, tenant);
	size_t first = 0;
	if (!of)
		return false;
	for (size_t i = 1; i < of->count; i++)
		if (of->due_us[i] < of->due_us[first])
			first = i;
	if (of->due_us[first] > now_us)
		return false;
	drop(of, first);
	return true;
}

void bookings_expire(struct bookings *bookings, uint64_t now_us)
{
	for (size_t t = 0; t < BOOKINGS_TENANTS; t++) {
		struct bookings_of *of = &bookings->tenants[t];
		for (size_t i = of->count; i-- > 0;)
			if (of->due_us[i] + BOOKINGS_LATE_US < now_us)
				drop(of, i);
	}
}
