"""An agent that thinks for minutes: its event stream is silent for longer than every limit but the one of event streams, at the defaults."""
import time

import pytest

from twins import Twins, request
from wire import Wire

SILENCE_SECONDS = 130   # CLIENT_IDLE_SECONDS is 75, DATASETTE_TIMEOUT_SECONDS 60

pytestmark = pytest.mark.timeout(600)


def test_an_event_stream_is_silent_for_minutes(rig):
    twins = Twins(rig)
    try:
        with Wire(twins.through, limit=SILENCE_SECONDS + 120) as wire:
            wire.send(request("POST", f"/-/wire/events?count=1&gap={SILENCE_SECONDS}", "Accept: text/event-stream"))
            head = wire.head()
            assert (head.status, head["Content-Type"]) == (200, "text/event-stream"), head.fields
            pieces = wire.body(head)
            assert next(pieces) == b'event: turn\ndata: {"n": 0}\n\n'
            began = time.monotonic()
            assert b"".join(pieces) == b"event: done\ndata: {}\n\n", "it did not go on"
            assert time.monotonic() - began > SILENCE_SECONDS - 10, "there was no silence"
            wire.send(request("GET", "/-/wire/echo"))
            assert wire.answer().status == 200, "the connection serves on"
    finally:
        twins.close()
