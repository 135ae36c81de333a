"""A way to the gateway for clients that cannot send a token: it adds one to each request and changes nothing else of it. It may lose answers.

One request a connection, since only heads are understood here.
"""
import contextlib
import socket
import threading


class Front:
    def __init__(self, port, token=None):
        self.to, self.token = port, token
        self.lose = 0       # answers that do not reach the client,
        self.spare = 0      # after so many that do
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://localhost:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=self.listener.accept()[:1], daemon=True).start()

    def serve(self, client):
        with client, socket.create_connection(("127.0.0.1", self.to)) as gateway, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                more = client.recv(65536)
                if not more:
                    return
                head += more
            head, _, body = head.partition(b"\r\n\r\n")
            first, *lines = head.split(b"\r\n")
            replaced = (b"connection:", b"authorization:") if self.token else (b"connection:",)
            kept = [line for line in lines if not line.lower().startswith(replaced)]
            added = [f"Authorization: Bearer {self.token}".encode()] if self.token else []
            gateway.sendall(b"\r\n".join([first, *kept, *added, b"Connection: close", b"", body]))
            threading.Thread(target=self.pass_on, args=(client, gateway), daemon=True).start()
            while more := gateway.recv(65536):
                if self.lose and not self.spare:
                    self.lose -= 1
                    break
                client.sendall(more)
            self.spare = max(0, self.spare - 1)
            client.shutdown(socket.SHUT_RDWR)       # the thread that waits for it keeps it open

    @staticmethod
    def pass_on(client, gateway):
        """The rest of a body; a client that has left ends its request."""
        with contextlib.suppress(OSError):
            while more := client.recv(65536):
                gateway.sendall(more)
            gateway.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.listener.close()
