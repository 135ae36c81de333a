"""A machine that is started for a request must not make it wait: the gateway serves a moment after its start."""
import socket
import time

import pytest

from rig import SLOWER, OwnGateway, check_median, until

REQUEST = b"GET /-/gateway/health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def serves(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(REQUEST)
            return connection.recv(12) == b"HTTP/1.1 200"
    except OSError:
        return False


@pytest.mark.alone
@pytest.mark.bar
def test_it_serves_within_100_ms(rig, stack):
    def start():
        began = time.monotonic()
        gateway = OwnGateway({"datasette_url": stack.datasette, "redis_url": stack.redis_url, "sprites_url": stack.sprites.url,
                              "sprites_token": stack.sprites.token, "pepper": stack.pepper, "pool_hot": 0}, wait=False)
        rig.add(gateway, gateway.stop_at_once)
        until(lambda: serves(gateway.port), "it serves", interval=0.001)
        return time.monotonic() - began

    check_median(start, 100 * SLOWER, "from the start of the process to the first answer")
