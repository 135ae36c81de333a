"""Processes of this machine. Those inside the emulator's sandboxes are among them."""
import os
import pathlib
import secrets
import signal

from rig import until


def new_mark():
    """A time to sleep that nobody else on this machine sleeps for: days, so that a test says when it ends."""
    return f"{10**6 + secrets.randbelow(10**9)}.5"


def running(mark):
    """Pids of the processes that have this argument."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                words = pathlib.Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
                state = pathlib.Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if mark.encode() in words and state not in "ZX":
                found.append(int(entry))
    return found


def go_on(mark, count=1):
    """So many commands of the form `sleep MARK; …` stop sleeping."""
    def sleeping():
        pids = running(mark)
        return len(pids) >= count and pids
    for pid in until(sleeping, f"{count} commands sleep"):
        os.kill(pid, signal.SIGKILL)
