"""A model that follows the script in the user's message: {"steps": [[{"id": …, "name": …, "arguments": {…}}, …], …]}.

In each step it calls these tools; before the next one, and at the end, it says what the tools told it, as a JSON array.
"""
import json

import llm
from llm.parts import StreamEvent
from llm.plugins import pm


def next_calls(messages):
    """Those of the step that follows the last answer to the user's last message."""
    asked = max(at for at, message in enumerate(messages) if message.role == "user")
    answered = sum(message.role == "assistant" for message in messages[asked:])
    script = json.loads("".join(part.text for part in messages[asked].parts))
    return script["steps"][answered] if answered < len(script["steps"]) else []


class Scripted(llm.AsyncModel):
    model_id, can_stream, supports_tools = "scripted", True, True

    async def execute(self, prompt, stream, response, conversation=None):
        if prompt.tool_results:
            yield StreamEvent(type="text", chunk=json.dumps([result.output for result in prompt.tool_results]), part_index=0)
        for number, call in enumerate(next_calls(prompt.messages), 1):
            for kind, text in (("tool_call_name", call["name"]), ("tool_call_args", json.dumps(call["arguments"]))):
                yield StreamEvent(type=kind, chunk=text, part_index=number, tool_call_id=call["id"])
            response.add_tool_call(llm.ToolCall(name=call["name"], arguments=call["arguments"], tool_call_id=call["id"]))


class Unused(llm.Model):
    """llm registers asynchronous models only beside one that is not."""
    model_id = "scripted"

    def execute(self, prompt, stream, response, conversation):
        raise NotImplementedError


class Models:
    @llm.hookimpl
    def register_models(self, register):
        register(Unused(), Scripted())


pm.register(Models(), name="scripted")
