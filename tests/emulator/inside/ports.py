"""The Sprite's listening TCP ports: a line with all of them, then one for each that opens or closes."""
import ipaddress
import json
import os
import struct
import time

PAUSE = 0.2
LISTEN = "0A"


def listening():
    """(address, port) -> inode."""
    found = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as file:
                rows = [line.split() for line in file][1:]
        except FileNotFoundError:
            continue
        for row in rows:
            if row[3] == LISTEN:
                address, _, port = row[1].partition(":")
                found[decode(address), int(port, 16)] = row[9]
    return found


def decode(text):
    """The kernel prints words of its own byte order."""
    words = [int(text[i:i + 8], 16) for i in range(0, len(text), 8)]
    return str(ipaddress.ip_address(struct.pack(f"={len(words)}I", *words)))


def owners():
    """inode -> pid, of sockets whose processes we may look into."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                target = os.readlink(f"/proc/{pid}/fd/{fd}")
                if target.startswith("socket:["):
                    found.setdefault(target[8:-1], int(pid))
        except OSError:
            continue
    return found


def describe(key, pid, type):
    return {"type": type, "port": key[1], "address": key[0], "pid": pid}


def tell(message):
    print(json.dumps(message), flush=True)


def look():
    """(address, port) -> pid, of the Sprite's own processes; the machine around it listens too."""
    pids = owners()
    return {key: pids[inode] for key, inode in listening().items() if inode in pids}


def main():
    known = look()
    tell({"type": "port_list", "ports": [describe(key, pid, "port_opened") for key, pid in sorted(known.items())]})
    while True:
        time.sleep(PAUSE)
        now = look()
        for key in sorted(known.keys() - now.keys()):
            tell(describe(key, known[key], "port_closed"))
        for key in sorted(now.keys() - known.keys()):
            tell(describe(key, now[key], "port_opened"))
        known = now


if __name__ == "__main__":
    main()
