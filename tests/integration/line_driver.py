"""A program of tests/drivers: it is told by lines of words and tells by lines of JSON."""
import json
import queue
import subprocess
import threading
import time

import rig
from rig import PATIENCE


class LineDriver:
    def __init__(self, program, *arguments, env=None):
        self.log = open(rig.LOGS / f"{program}-{next(rig.numbers)}.log", "w+b")
        self.process = subprocess.Popen([rig.TOP / "build" / rig.PRESET / "bin" / program, *map(str, arguments)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.log, text=True, bufsize=1, env=rig.clean_environment(env))
        self.lines = queue.Queue()
        self.seen = []
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(json.loads(line))

    def take(self, line):
        """A line is the next one."""
        self.seen.append(line)

    def send(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")

    def next(self, wanted, seconds=PATIENCE):
        """The next line that has this key, or that `wanted` accepts; the others are kept in `seen`."""
        accepts = wanted if callable(wanted) else lambda line: wanted in line
        end = time.monotonic() + seconds
        while True:
            try:
                line = self.lines.get(timeout=max(0, end - time.monotonic()))
            except queue.Empty:
                what = "such line" if callable(wanted) else f"{wanted!r}"
                raise AssertionError(f"no {what} within {seconds} s; the last were {self.seen[-10:]}, log: {self.errors}") from None
            self.take(line)
            if accepts(line):
                return line

    @property
    def errors(self):
        self.log.seek(0)
        return self.log.read().decode()
