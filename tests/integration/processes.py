"""Processes of this machine. Those inside the emulator's sandboxes are among them."""
import os
import pathlib


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
