"""Datasette's agent, with the scripted model of plugins/scripted.py, as the chat page talks to it."""
import contextlib
import json
import re
import time

import httpx

from emulator_client import PATIENCE

EVENT = re.compile(r"^event: (.*)\ndata: (.*)$", re.MULTILINE)


class Agent:
    """A signed-in person who chats."""

    def __init__(self, http):
        self.http = http

    def begin(self):
        """A new conversation."""
        made = self.http.post("/-/agent/api/conversations")
        assert made.status_code == 200, made.text
        return made.json()["conversation_id"]

    def turn(self, steps, conversation=None):
        """One turn, of steps with (tool, arguments) each: its events, and of each step what the model was told."""
        script = {"steps": [[{"id": f"call_{number}_{at}", "name": name, "arguments": arguments} for at, (name, arguments) in enumerate(step)]
                            for number, step in enumerate(steps)]}
        turn = self.http.post(f"/-/agent/{conversation or self.begin()}/stream", json={"message": json.dumps(script)})
        events = [(event, json.loads(data)) for event, data in EVENT.findall(turn.text)]
        assert turn.headers["Content-Type"].startswith("text/event-stream") and events[-1] == ("done", {}), turn.text
        told = [json.loads(data["content"]) for event, data in events if event == "text_chunk"]
        assert [len(step) for step in told] == [len(step) for step in steps]
        return events, told

    def say(self, steps):
        """Of each step, what its tools gave to the model."""
        return [[json.loads(output) for output in step] for step in self.turn(steps)[1]]

    def call(self, tool, **arguments):
        """What the tool gave, when that is the same for the browser and for the model."""
        events, [[told]] = self.turn([[(tool, arguments)]])
        [shown] = [data for event, data in events if event == "tool_result"]
        assert shown == {"id": "id:call_0_0", "name": tool, "output": told}
        return json.loads(told)


def until_up(http, process, log):
    end = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(httpx.TransportError):
            if http.get("/-/versions.json").status_code == 200:
                return
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.05)
