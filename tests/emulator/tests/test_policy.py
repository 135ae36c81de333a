"""Policies: strictly checked, stored, given back, and what they decide."""
import pytest

from policy import BadPolicy, NetworkPolicy


async def test_the_network_policy_is_stored_and_given_back(emulator):
    async with emulator.client() as client:
        path = f"/v1/sprites/{await client.create()}/policy/network"
        first = await client.call("GET", path)
        assert (first.status, first.json, first.headers["Content-Type"]) == (200, {"rules": []}, "application/json")
        assert first.headers["Sprite-Version"] == "v0.0.1-rc46"
        for rules in ([{"domain": "*", "action": "deny"}], [{"include": "defaults"}, {"domain": "*.x.com", "action": "allow"}], []):
            stored = await client.call("POST", path, json={"rules": rules})
            assert (stored.status, stored.body) == (204, b"")
            assert (await client.call("GET", path)).json == {"rules": rules}
        assert (await client.call("GET", path.replace("network", "other"))).status == 404


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"null", b"{}", b'{"rules": null}', b'{"rules": {}}', b'{"rules": [], "more": 1}', b'{"rules": [5]}',
    b'{"rules": [{}]}', b'{"rules": [{"domain": "x.com"}]}', b'{"rules": [{"action": "deny"}]}',
    b'{"rules": [{"domain": "x.com", "action": "block"}]}', b'{"rules": [{"domain": "", "action": "deny"}]}',
    b'{"rules": [{"domain": "x.com", "include": "defaults", "action": "deny"}]}', b'{"rules": [{"include": "all"}]}',
    b'{"rules": [{"include": "defaults", "action": "allow"}]}', b'{"rules": [{"domain": "a b", "action": "deny"}]}',
    b'{"rules": [{"domain": "x.*", "action": "deny"}]}', b'{"rules": [{"domain": "x.com", "action": "deny", "port": 1}]}'])
async def test_a_bad_network_policy_is_refused_and_changes_nothing(emulator, body):
    async with emulator.client() as client:
        path = f"/v1/sprites/{await client.create()}/policy/network"
        rules = {"rules": [{"domain": "*", "action": "deny"}]}
        await client.call("POST", path, json=rules)
        refused = await client.call("POST", path, data=body, headers={"Content-Type": "application/json"})
        assert refused.status == 400 and refused.text.startswith("invalid policy config")
        assert refused.headers["Content-Type"].startswith("text/plain")
        assert (await client.call("GET", path)).json == rules


async def test_the_policy_can_be_read_inside(emulator):
    async with emulator.client() as client:
        name = await client.create()
        rules = '{"rules": [{"domain": "*", "action": "deny"}]}\n'
        assert (await client.run(name, "cat", "/.sprite/policy/network.json")).out == '{"rules": []}\n'
        await client.call("POST", f"/v1/sprites/{name}/policy/network", data=rules)
        assert (await client.run(name, "cat", "/.sprite/policy/network.json")).out == rules


@pytest.mark.parametrize("kind, good, bad", [
    ("privileges", {"profile": "minimal", "devices": ["/dev/fuse"], "noNewPrivileges": True}, {"profile": "root"}),
    ("resources", {"memory": {"limit_mb": 512, "autoscale": True}}, {"memory": {"limit_mb": "512"}})])
async def test_the_other_policies(emulator, kind, good, bad):
    async with emulator.client() as client:
        path = f"/v1/sprites/{await client.create()}/policy/{kind}"
        assert (await client.call("GET", path)).json == {}
        assert (await client.call("POST", path, json=good)).status == 204
        assert (await client.call("GET", path)).json == good
        assert (await client.call("POST", path, json=bad)).status == 400
        assert (await client.call("POST", path, json={"unknown": 1})).status == 400
        assert (await client.call("GET", path)).json == good
        assert (await client.call("DELETE", path)).status == 204
        assert (await client.call("GET", path)).json == {}


@pytest.mark.parametrize("rules, allowed, denied", [
    ([], ["x.com"], []),
    ([{"domain": "*", "action": "deny"}], [], ["x.com"]),
    ([{"include": "defaults"}], ["pypi.org", "api.github.com"], ["x.com"]),
    ([{"domain": "x.com", "action": "allow"}], ["x.com", "X.COM."], ["a.x.com", "y.com"]),
    ([{"domain": "*", "action": "allow"}, {"domain": "x.com", "action": "deny"}], ["y.com", "a.x.com"], ["x.com"]),
    ([{"domain": "*.x.com", "action": "deny"}, {"domain": "a.x.com", "action": "allow"}, {"domain": "*", "action": "allow"}],
     ["a.x.com", "x.com", "y.com"], ["b.x.com", "b.a.x.com"]),
])
def test_what_a_network_policy_allows(rules, allowed, denied):
    policy = NetworkPolicy.parse({"rules": rules})
    assert [policy.allows(host) for host in allowed] == [True] * len(allowed)
    assert [policy.allows(host) for host in denied] == [False] * len(denied)


def test_a_policy_must_be_an_object():
    with pytest.raises(BadPolicy):
        NetworkPolicy.parse(["rules"])
