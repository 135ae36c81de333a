/*
 * doctor - `spritegate doctor`: can a gateway with these settings do its work here, and if not, what is to be done?
 *
 * Each of Redis, Sprites and Datasette is looked at by a process of its own, all at the same time, so that one that hangs holds up
 * nothing and is ended after DOCTOR_SECONDS.
 */
#pragma once

#include "gateway/config.h"

#define DOCTOR_SECONDS 10

/* The exit status: 0 nothing failed (there may be warnings), 1 something did. */
int doctor(const struct config *config, bool json);

/* The settings themselves cannot be used; the faults, one a line, are all that is told. */
int doctor_settings_failed(struct slice faults, bool json);
