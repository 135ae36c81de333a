"""Datasette in other places than a port of its own: behind https, on a Unix socket, below a prefix. Each of a part of the table is as ever."""
import pytest

import rig as rigs
import twins as pairs
from certificates import certificate
from rig import until
from transparency import JSON, ROWS, differences, method_of
from twins import HOST, request
from wire import Wire


@pytest.fixture(scope="module")
def folder():
    return rigs.LOGS / f"elsewhere-{next(rigs.numbers)}"


def start(rig, folder, name, *options, **more):
    part = pairs.Datasette(folder / name, *options, **more)
    return rig.add(part, part.kill)


@pytest.fixture(scope="module")
def direct(shared_rig, folder):
    datasette = start(shared_rig, folder, "direct")
    datasette.until_up(datasette.answers)
    return datasette.port


def gateway_to(rig, url, **settings):
    gateway = rig.gateway(datasette_url=url, token=False, **settings)
    until(lambda: gateway.get("/-/versions.json").status_code == 200, "Datasette answers")
    return gateway.port


def compare(direct, through, rows):
    for name, data in rows:
        seen = []
        for port in (direct, through):
            with Wire(port) as wire:
                seen.append(pairs.Seen(wire.send(data), method_of(data)))
        found = differences(*seen, method_of(data))
        assert not found, name + "\n" + "\n".join(found)


def part_of_the_table(first):
    """Datasette's HTML takes long to be made."""
    return [(name, data) for name, data in ROWS.items() if "/-/wire/" in name or ".json" in name][first::12]


def test_https(shared_rig, folder, direct):
    ours = certificate(folder, "127.0.0.1")
    datasette = start(shared_rig, folder, "https", "--ssl-certfile", ours.certificate, "--ssl-keyfile", ours.key)
    compare(direct, gateway_to(shared_rig, f"https://127.0.0.1:{datasette.port}", datasette_ca_file=ours.certificate), part_of_the_table(0))


def test_a_unix_socket(shared_rig, folder, direct):
    """There uvicorn believes the fields that tell of the client only if told to."""
    socket = folder / "socket"
    start(shared_rig, folder, "unix", "--uds", socket, env={"FORWARDED_ALLOW_IPS": "*"})
    compare(direct, gateway_to(shared_rig, f"unix:{socket}"), part_of_the_table(3))


PREFIXED = ["/prefix/", "/prefix/sample.json", "/sample.json", "/prefix/sample/readings.json?_size=1", "/sample/readings.json?_size=1",
            "/prefix/sample/readings?_size=1&_facet=station", "/prefix/-/static/app.css", "/prefix/sample/", "/prefix/odd/a%2Fb", "/prefix//sample",
            "/prefix/../sample", "/prefix/%2e%2e/sample", "/prefix/-/agent/exec"]


def test_a_prefix(shared_rig, folder):
    """Datasette's own addresses have it or not, rightly or not: none is repaired. The gateway's have none."""
    datasette = start(shared_rig, folder, "prefix", "--setting", "base_url", "/prefix/")
    datasette.until_up(datasette.answers)
    write = request("POST", "/prefix/sample/empty/-/insert", JSON, f"Origin: http://{HOST}", body=b"{")
    compare(datasette.port, gateway_to(shared_rig, datasette.url), [*((path, request("GET", path)) for path in PREFIXED), ("write", write)])
