"""A TCP connection from inside the Sprite, joined to stdin and stdout: dial.py HOST PORT

First a line {"status": "connected", "target"} or {"status": "failed", "error"}, then what arrives.
"""
import json
import os
import socket
import sys
import threading

CHUNK = 1 << 16
TIMEOUT = 10


def send(connection):
    try:
        while data := os.read(0, CHUNK):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass        # the other side is gone, which the receiving end tells


def main(host, port):
    try:
        connection = socket.create_connection((host, port), TIMEOUT)
    except OSError as error:
        print(json.dumps({"status": "failed", "error": f"dial tcp {host}:{port}: {error.strerror or error}"}))
        return
    connection.settimeout(None)
    address = connection.getpeername()
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    print(json.dumps({"status": "connected", "target": f"{host}:{address[1]}"}), flush=True)
    threading.Thread(target=send, args=(connection,), daemon=True).start()
    try:
        while data := connection.recv(CHUNK):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
    except OSError:
        pass


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
