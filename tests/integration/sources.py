"""A gateway whose Datasette does what a test says, for commands that read from it."""
import pytest

from answers import is_uuid7, problem
from rig import leases, until


class Upstream:
    """A gateway whose Datasette does what a test says."""

    def __init__(self, rig, **settings):
        self.fake, self.redis, self.sprites = rig.upstream(), rig.stack.redis, rig.stack.sprites
        self.gateway = rig.gateway(datasette_url=self.fake.url, pool_hot=2, **settings)
        self.gateway.until_ready()

    def on(self, path):
        return self.fake.on(path)

    def exec(self, command="cat", source="/x", **more):
        return self.gateway.exec(command=command, stdin={"datasette": source}, **more)

    def look(self, exec_id):
        return self.gateway.get(f"/-/agent/exec/{exec_id}", headers={"Authorization": f"Bearer {self.gateway.token}"}).json()

    def run(self, command="cat", source="/x", **more):
        return self.gateway.run(command, stdin={"datasette": source}, **more)


@pytest.fixture(scope="module")
def shared(shared_rig):
    return Upstream(shared_rig)


@pytest.fixture
def upstream(shared):
    shared.fake.routes.clear()
    yield shared
    assert not shared.fake.failures, shared.fake.failures
    until(lambda: leases(shared.redis) == 0, "no lease is held")


def failed(response, status, started=False):
    """A problem that says of the source what is known."""
    body = problem(response, 502, "source-failed")
    assert body["source_status"] == status and body["pointer"] == "/stdin", body
    assert body["may_have_run"] is started and body["outcome"] == ("canceled" if started else "not_started"), body
    assert is_uuid7(body["exec_id"]) and body["exec_id"] == response.headers["X-Exec-Id"]
    return body
