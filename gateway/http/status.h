/*
 * status - the reason phrase of a status
 *
 * libmicrohttpd takes its phrases from here, too: its own differ from those that Datasette's server has.
 */
#pragma once

/* "Not Found"; "" for a status without a name. */
const char *http_status_phrase(unsigned status);
