"""Programs the bench starts, and what the kernel says they used. Each is ended by its pid, whatever happens."""
import contextlib
import http.client
import os
import pathlib
import signal
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS = 20
STOP_SECONDS = 12
QUIET = {"no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}


class NotMeasured(Exception):
    """Why a figure is missing; the text goes to the user."""


class Program:
    """One running program with its own log. `cpu` pins it; it dies with the bench."""

    def __init__(self, name, argv, folder, cpu=None, env=None, log=None):
        self.name = name
        self.log = folder / (log or f"{name}.log")
        pin = [] if cpu is None else ["taskset", "-c", str(cpu)]
        with open(self.log, "ab") as output:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *pin, *map(str, argv)], env={**os.environ, **QUIET, **(env or {})},
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0)
        self.pid = self.process.pid

    def wait_until(self, ready):
        """Until ready() is true; OSError means not yet."""
        end = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if ready():
                    return self
            if self.process.poll() is not None or time.monotonic() > end:
                raise NotMeasured(f"{self.name} did not start; its log ends with:\n{self.log_tail()}")
            time.sleep(0.02)

    def log_tail(self):
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:])

    def pids(self):
        """Its own pid and those of all its descendants."""
        found, new = [], [self.pid]
        while new:
            pid = new.pop()
            found.append(pid)
            for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
                new += map(int, children.read_text(encoding="ascii").split())
        return found

    def cpu_seconds(self):
        """User and system time so far, by each process's CPU clock (clock_getcpuclockid): /proc counts in hundredths of a second."""
        return sum(time.clock_gettime(~pid << 3 | 2) for pid in self.pids())

    def rss_bytes(self):
        total = 0
        for pid in self.pids():
            for line in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1]) * 1024
        return total

    def ask_to_stop(self):
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def wait_stopped(self):
        try:
            self.process.wait(timeout=STOP_SECONDS)
        finally:
            self.process.kill()   # does nothing to one that has been waited for


class Programs:
    """Programs that are stopped together at the end of a `with`."""

    def __init__(self, folder):
        self.folder = folder
        self.running = []

    def start(self, name, argv, **options):
        program = Program(name, argv, self.folder, **options)
        self.running.append(program)
        return program

    def __enter__(self):
        return self

    def __exit__(self, *reason):
        for program in self.running:
            program.ask_to_stop()
        for program in self.running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait_stopped()
