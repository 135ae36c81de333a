"""What a run measured of the nine open questions, and the table it prints at the end."""
import statistics

QUESTIONS = {
    "M1": "does an idle control socket hold a Sprite running",
    "M2": "how long waking takes, when it turns warm and cold",
    "M3": "from create to the end of the first command",
    "M4": "from restore to the end of a command, is memory fresh",
    "M5": "the limit on creations, what says so, limits of states",
    "M6": "bytes through a control socket",
    "M7": "exit frame, text exit and op.complete of signals",
    "M8": "disconnect, KILL, kill route",
    "M9": "what a running, idle Sprite holds",
}
NOT_MEASURED = "not measured in this run"


class Figures:
    def __init__(self):
        self.samples = {key: {} for key in QUESTIONS}       # what -> seconds
        self.notes = {key: [] for key in QUESTIONS}

    def time(self, key, what, seconds):
        self.samples[key].setdefault(what, []).append(seconds)

    def note(self, key, text):
        self.notes[key].append(text)

    def rows(self):
        for key, question in QUESTIONS.items():
            told = [f"{what}: {spread(values)}" for what, values in self.samples[key].items()] + self.notes[key]
            yield key, question, told or [NOT_MEASURED]


def spread(seconds):
    """One value, or the median and the extremes of several."""
    if len(seconds) == 1:
        return milliseconds(seconds[0])
    return f"{milliseconds(statistics.median(seconds))} ({milliseconds(min(seconds))} to {milliseconds(max(seconds))}, n={len(seconds)})"


def milliseconds(seconds):
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"


def table(figures, target):
    lines = [f"measured against {target}"]
    for key, question, told in figures.rows():
        lines.append(f"{key}  {question}")
        lines += [f"      {line}" for line in told]
    return lines
