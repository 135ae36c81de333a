/*
 * crowd - too many connections: of one address, or in all
 *
 * One that does nothing is worth less than one that comes, so the one that has been idle for longest makes room.
 */
#include "gateway/http/internal.h"

#include <sys/socket.h>
#include <utlist.h>

/* For a newcomer, among those that rest; more would cost the others time when many come at once. */
#define LOOKED_AT_MAX 64

static void tell(struct http_server *server, enum http_crowd crowd)
{
	if (server->options.observer.on_crowded)
		server->options.observer.on_crowded(server->options.observer.ctx, crowd);
}

static void turn_away(struct http_connection *connection, enum http_crowd crowd)
{
	bool of_address = crowd == HTTP_CROWD_ADDRESS;
	struct http_problem problem = {
		.status = of_address ? 429 : 503,
		.code = of_address ? "too-many-connections" : "temporary-reduced-capacity",
		.detail = of_address ? SLICE("This address has too many connections open.") : SLICE("Too many connections are open."),
	};
	connection_say(connection, &problem);
	connection_hang_up(connection);
	tell(connection->server, crowd);
}

static bool is_counted(const struct http_server *server, struct http_connection *connection)
{
	struct slice peer = slice_str(connection->peer);
	if (!server->options.census || (server->options.exempt && peer_set_has(server->options.exempt, peer)))
		return false;
	return peer_parse(peer, connection->address);
}

/* The one that has been idle for longest, or NULL. Who has just asked has not: it goes behind the newcomer. */
static struct http_connection *find_idle(struct http_server *server, const struct http_connection *newcomer)
{
	for (int i = 0; i < LOOKED_AT_MAX && server->resting != newcomer; i++) {
		struct http_connection *first = server->resting;
		if (!connection_has_spoken(first))
			return first;
		connection_expect_head(first, first->head_deadline_us);
	}
	return NULL;
}

void crowd_enter(struct http_connection *connection)
{
	struct http_server *server = connection->server;
	if (is_counted(server, connection)) {
		connection->counted = census_enter(server->options.census, connection->address);
		if (!connection->counted) {
			turn_away(connection, HTTP_CROWD_ADDRESS);
			return;
		}
	}
	if (server->connection_count <= server->options.max_connections)
		return;
	struct http_connection *idle = find_idle(server, connection);
	if (!idle) {
		turn_away(connection, HTTP_CROWD_TOTAL);
		return;
	}
	connection_hang_up(idle);
	tell(server, HTTP_CROWD_IDLE);
}

void crowd_leave(struct http_connection *connection)
{
	if (connection->counted)
		census_leave(connection->server->options.census, connection->address);
}
