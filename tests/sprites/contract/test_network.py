"""A closed network: the policy is taken, read back as it was sent, and nothing gets out."""
from service import CLOSED

# Says what becomes of the name $1, and of the address $3 or else the name's, at port $2.
REACH = """
address=$(timeout 10 getent ahostsv4 "$1" | head -n 1 | cut -d ' ' -f 1)
echo "name ${address:-none}"
if timeout 10 bash -c 'exec 3<>"/dev/tcp/$1/$2"' bash "${3:-${address:-192.0.2.1}}" "$2" 2>/dev/null; then echo open; else echo closed; fi
"""


async def reach(service, sprite, *words):
    result = await service.shell(sprite, REACH, *[str(word) for word in words], seconds=60)
    assert result.code == 0, result.err
    name, door = result.out.decode().split("\n")[:2]
    return name.removeprefix("name "), door


async def test_a_closed_network(service, fresh, reachable):
    sprite = fresh[0]
    before = await service.ask("GET", f"/v1/sprites/{sprite}/policy/network")
    assert before.status == 200
    address, door = await reach(service, sprite, *reachable)
    assert address != "none" and door == "open", "a new Sprite is expected to reach the outside; without that the rest proves nothing"

    answer = await service.ask("POST", f"/v1/sprites/{sprite}/policy/network", json=CLOSED)
    assert answer.status in range(200, 205)
    assert (await service.ask("GET", f"/v1/sprites/{sprite}/policy/network")).json["rules"] == CLOSED["rules"]
    assert await reach(service, sprite, *reachable) == ("none", "closed")
    assert await reach(service, sprite, *reachable, address) == ("none", "closed"), "by its address"


async def test_a_policy_of_domains_is_read_back_as_it_was_set(service, fresh):
    rules = [{"include": "defaults"}, {"domain": "example.com", "action": "allow"}, {"domain": "*.example.org", "action": "allow"},
             {"domain": "*", "action": "deny"}]
    for wanted in (rules, rules[1:], CLOSED["rules"]):
        answer = await service.ask("POST", f"/v1/sprites/{fresh[0]}/policy/network", json={"rules": wanted})
        assert answer.status in range(200, 205)
        assert (await service.ask("GET", f"/v1/sprites/{fresh[0]}/policy/network")).json["rules"] == wanted


async def test_what_is_no_policy_is_refused(service, sprite):
    answer = await service.ask("POST", f"/v1/sprites/{sprite}/policy/network", json={"rules": [{"domain": "*", "action": "perhaps"}]})
    assert answer.status == 400
    assert (await service.ask("GET", f"/v1/sprites/{sprite}/policy/network")).json["rules"] == CLOSED["rules"]
