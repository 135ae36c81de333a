"""Creating, finding and listing Sprites; who may."""
import asyncio
import time

import pytest

from service import Refused

AGENT_ROUTES = (("GET", "policy/network"), ("POST", "policy/network"), ("GET", "exec"), ("POST", "checkpoint"))


async def test_a_creation_is_answered_with_the_sprite(fresh, figures):
    name, answer = fresh
    assert answer.status == 201
    assert answer.json["name"] == name
    fields = {key: value for key, value in answer.headers.items() if key.lower().startswith("x-ratelimit")}
    figures.note("M5", f"fields of a creation that succeeded: {fields or 'none'}")


async def test_a_name_is_taken_once(service, fresh):
    """So a creation whose answer was lost can be sent again: 409 says that it had happened."""
    answer = await service.ask_create(fresh[0])
    assert answer.status == 409


async def test_a_name_that_is_none_is_refused(service):
    answer = await service.ask_create("")
    assert answer.status == 400
    assert isinstance(answer.json["errors"][0], str)


async def test_a_sprite_is_found_by_its_name(service, fresh):
    answer = await service.call("GET", f"/v1/sprites/{fresh[0]}")
    assert answer.status == 200
    assert answer.json["name"] == fresh[0]
    assert answer.json["status"] in ("cold", "warm", "running")


async def test_a_new_sprite_is_on_the_list_at_once(service, fresh):
    assert fresh[0] in await service.listed(fresh[0])


async def test_the_list_has_only_names_with_the_prefix(service, fresh, sprite, other):
    assert sorted(await service.listed(service.prefix)) == sorted([fresh[0], sprite, other])
    assert await service.listed(service.prefix + "none-") == []


async def test_the_list_comes_in_pages(service, fresh, sprite, other, figures):
    """A token leads on, and where there is none the list ends."""
    first = await service.page(service.prefix, size=2)
    assert len(first["sprites"]) == 2
    second = await service.page(service.prefix, size=2, token=first["next_continuation_token"])
    assert not second["next_continuation_token"]
    names = [entry["name"] for page in (first, second) for entry in page["sprites"]]
    assert sorted(names) == sorted([fresh[0], sprite, other])
    counters = {**(second.get("org") or {}), **second}
    figures.note("M5", ", ".join(f"{key}: {counters.get(key, 'not told')}" for key in ("running", "running_limit", "warm_limit")))
    figures.note("M5", f"has_more on the last page: {second.get('has_more')}")


async def test_a_wrong_token_is_refused(service, fresh):
    wrong = {"Authorization": "Bearer conformance/0/none"}
    for method, path in (("GET", "/v1/sprites"), ("GET", f"/v1/sprites/{fresh[0]}"), ("GET", f"/v1/sprites/{fresh[0]}/policy/network")):
        assert (await service.call(method, path, headers=wrong)).status == 401, path
    with pytest.raises(Refused) as refused:
        async with service.control(fresh[0], headers=wrong):
            pass
    assert refused.value.status == 401


async def test_a_sprite_that_is_not_there(service):
    missing = service.prefix + "missing"
    assert (await service.call("GET", f"/v1/sprites/{missing}")).says_missing
    assert (await service.delete(missing)).says_missing
    for method, route in AGENT_ROUTES:
        answer = await service.call(method, f"/v1/sprites/{missing}/{route}", json={"rules": []} if method == "POST" else None)
        assert answer.status == 404, route
        assert answer.text, route
        assert "Sprite-Version" not in answer.headers, "only a Sprite may say so, and this is none"
    with pytest.raises(Refused) as refused:
        async with service.control(missing):
            pass
    assert refused.value.status == 404


async def test_the_agent_says_its_version(service, sprite):
    """What tells a 404 of the Sprite from one of the API in front of it."""
    answer = await service.ask("GET", f"/v1/sprites/{sprite}/policy/network")
    assert answer.headers["Sprite-Version"]


async def test_several_requests_at_a_time(service, sprite):
    began = time.monotonic()
    answers = await asyncio.gather(*(service.ask("GET", f"/v1/sprites/{sprite}/policy/network") for _ in range(10)))
    assert {answer.status for answer in answers} == {200}
    assert time.monotonic() - began < 15
