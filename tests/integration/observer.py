"""What becomes of bytes that are sent to a server: its answers, its connection, and what arrives behind it."""
import dataclasses

from nasty import Upstream
from vectors import AGAIN, CLOSED, KEPT
from wire import Broken, CutOff, Wire

SILENT = "silent"       # neither answered nor closed within the time


@dataclasses.dataclass
class Seen:
    answers: list
    end: str
    whole: list         # exchanges whose request arrived whole, what was sent to see whether the connection lives left out
    begun: list         # what arrived of others

    @property
    def statuses(self):
        return [answer.status for answer in self.answers]

    @property
    def arrived(self):
        return [describe(exchange) for exchange in self.whole]


def describe(exchange):
    """"METHOD target framing body" in short."""
    length, coding = exchange["Content-Length"], exchange["Transfer-Encoding"]
    words = [exchange.method, exchange.target]
    if length is not None:
        words.append(f"length {length}")
    if coding is not None:
        words.append(coding)
    if 0 < len(exchange.content) <= 20:
        words.append(exchange.content.decode("latin-1"))
    return " ".join(words)


class Recorder(Upstream):
    """Answers everything with the body that came, and keeps what came whole."""

    def __init__(self):
        super().__init__()
        self.whole = []
        self.routes[None] = self.record

    def record(self, exchange):
        if exchange["Expect"]:
            exchange.send("HTTP/1.1 100 Continue\r\n\r\n")
        exchange.content = exchange.read()
        self.whole.append(exchange)
        exchange.reply(body=exchange.content)


def observe(port, recorder, data, seconds=15):
    """Send, read the first answer, and ask once more on the same connection, unless it says that it closes."""
    asked, whole = len(recorder.requests), len(recorder.whole)
    answers, end = [], CLOSED
    with Wire(port, limit=seconds) as wire:
        try:
            wire.send(data)
            method = data.lstrip().split(b" ")[0].decode("latin-1")
            answers.append(wire.answer(to=method))
            if (answers[0]["Connection"] or "").lower() == "close":
                end = CLOSED if wire.closed() else KEPT
            else:
                wire.send(AGAIN)
                answers.append(wire.answer())
                while recorder.whole[-1].target != "/again":
                    answers.append(wire.answer())
                end = KEPT
        except (CutOff, ConnectionError, Broken):
            pass
        except TimeoutError:
            end = SILENT
    came = [exchange for exchange in recorder.whole[whole:] if exchange.target != "/again"]
    begun = [exchange for exchange in recorder.requests[asked:] if exchange not in recorder.whole]
    again = any(exchange.target == "/again" and exchange["X-Again"] == "1" for exchange in recorder.whole[whole:])
    if end == KEPT and again:
        answers.pop()
    return Seen(answers, end, came, begun)
