"""The control plane: authorisation, creation, objects, lists, limits."""
import asyncio
import time

import pytest

from emulator_client import Emulator


async def test_a_wrong_or_missing_token_is_refused(emulator):
    for token in ("wrong", None, ""):
        async with emulator.client(token) as client:
            for method, path in (("GET", "/v1/sprites"), ("POST", "/v1/sprites/x/exec?cmd=true"), ("GET", "/nowhere")):
                answer = await client.call(method, path)
                assert (answer.status, answer.json) == (401, {"error": "authentication failed"})
                assert answer.headers["Content-Type"] == "application/json; charset=utf-8"


async def test_a_sprite_is_created_found_and_deleted(emulator):
    async with emulator.client() as client:
        made = await client.call("POST", "/v1/sprites", json={"name": "life", "labels": ["a"], "wait_for_capacity": True})
        assert made.status == 201
        assert list(made.json)[:10] == ["id", "name", "status", "version", "url", "updated_at", "created_at",
                                        "organization", "url_settings", "environment_version"]
        assert made.json["id"].startswith("sprite-")
        assert (made.json["name"], made.json["status"], made.json["version"]) == ("life", "cold", None)
        assert made.json["url_settings"] == {"auth": "sprite"}
        assert "X-Request-Id" in made.headers and "Sprite-Version" not in made.headers
        got = await client.call("GET", "/v1/sprites/life")
        assert (got.status, got.json) == (200, made.json)
        gone = await client.call("DELETE", "/v1/sprites/life")
        assert (gone.status, gone.body) == (204, b"")
        for method, path in (("GET", "/life"), ("DELETE", "/life"), ("PUT", "/life"), ("GET", "/life/exec"),
                             ("POST", "/life/exec?cmd=true"), ("GET", "/life/policy/network"), ("GET", "/life/control")):
            answer = await client.call(method, "/v1/sprites" + path)
            assert (answer.status, answer.json) == (404, {"error": "sprite not found"}), (method, path)
            assert "Sprite-Version" not in answer.headers
        await client.create("life")


async def test_a_name_is_taken_once(emulator):
    async with emulator.client() as client:
        answers = await asyncio.gather(*(client.call("POST", "/v1/sprites", json={"name": "twin"}) for _ in range(3)))
        assert sorted(answer.status for answer in answers) == [201, 409, 409]
        refused = next(answer for answer in answers if answer.status == 409)
        assert refused.json == {"error": "A sprite named 'twin' already exists. Please choose a different name."}


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": "Big"}, {"name": "-a"}, {"name": "a-"}, {"name": "a" * 64},
                                  {"name": "a_b"}, {"name": "a\n"}, {"name": 5}])
async def test_a_bad_name_is_refused(emulator, body):
    async with emulator.client() as client:
        answer = await client.call("POST", "/v1/sprites", json=body)
        assert (answer.status, answer.json) == (400, {"errors": ["invalid sprite name format"]})


async def test_a_bad_body_is_refused(emulator):
    async with emulator.client() as client:
        for body in (b"", b"{", b"[]"):
            assert (await client.call("POST", "/v1/sprites", data=body)).status == 400
        answer = await client.call("POST", "/v1/sprites", json={"name": "ok", "labels": [1]})
        assert answer.status == 400


async def test_the_longest_name_works(emulator):
    async with emulator.client() as client:
        name = await client.create("n" * 63)
        assert (await client.run(name, "true")).code == 0


async def test_an_update_changes_what_it_names(emulator):
    async with emulator.client() as client:
        name = await client.create(labels=["one", "two"])
        path = f"/v1/sprites/{name}"
        changed = await client.call("PUT", path, json={"url_settings": {"auth": "public"}})
        assert (changed.status, changed.json["url_settings"]["auth"]) == (200, "public")
        assert changed.json["labels"] == ["one", "two"]
        assert (await client.call("PUT", path, json={"labels": ["three"]})).json["labels"] == ["three"]
        assert (await client.call("PUT", path, json={"clear_labels": True})).json["labels"] == []
        bad = await client.call("PUT", path, json={"url_settings": {"auth": "all"}})
        assert (bad.status, bad.json) == (400, {"errors": ["invalid auth type, must be one of: sprite, public"]})
        assert (await client.call("PUT", path, json={})).status == 400


async def test_lists_have_pages_and_prefixes():
    with Emulator("--create-delay", "0") as emulator:
        async with emulator.client() as client:
            empty = await client.call("GET", "/v1/sprites")
            assert (empty.json["sprites"], empty.json["next_continuation_token"], empty.json["has_more"]) == ([], None, False)
            names = [f"page-{n:02}" for n in range(55)]
            for name in [*names, "other"]:
                await client.create(name)
            seen, token = [], None
            for size in (50, 5):
                params = {"prefix": "page-", "max_results": "100", **({"continuation_token": token} if token else {})}
                page = (await client.call("GET", "/v1/sprites", params=params)).json
                assert len(page["sprites"]) == size
                seen += [sprite["name"] for sprite in page["sprites"]]
                token = page["next_continuation_token"]
                assert page["has_more"] == (token is not None)
            assert (seen, token) == (names, None)
            assert page["cold"] == page["org"]["cold"] == 56
            two = (await client.call("GET", "/v1/sprites?prefix=page&max_results=2")).json
            assert [sprite["name"] for sprite in two["sprites"]] == names[:2]


async def test_creation_takes_its_time_and_the_client_may_leave():
    with Emulator("--create-delay", "300ms", quick=False) as emulator:
        async with emulator.client() as client:
            before = time.monotonic()
            await client.create("slow")
            assert time.monotonic() - before >= 0.3
            call = asyncio.ensure_future(client.call("POST", "/v1/sprites", json={"name": "left"}))
            await asyncio.sleep(0.1)
            call.cancel()
        async with emulator.client() as client:
            await client.until_status("left", "cold")
            assert (await client.state())["created"] == 2


async def test_the_creation_limit():
    with Emulator("--create-limit", "2/3s") as emulator:
        async with emulator.client() as client:
            for _ in range(2):
                await client.create()
            refused = await client.call("POST", "/v1/sprites", json={"name": "more"})
            assert refused.status == 429
            body = refused.json
            assert (body["error"], body["limit"], body["window_seconds"]) == ("sprite_creation_rate_limited", 2, 3)
            assert 1 <= body["retry_after_seconds"] <= 3 and body["message"]
            assert refused.headers["Retry-After"] == str(body["retry_after_seconds"])
            assert (refused.headers["X-RateLimit-Limit"], refused.headers["X-RateLimit-Remaining"]) == ("2", "0")
            assert abs(int(refused.headers["X-RateLimit-Reset"]) - time.time()) < 5
            state = await client.state()
            assert (state["creates_refused"], state["created"]) == (1, 2)
            await asyncio.sleep(body["retry_after_seconds"])
            await client.create("more")


async def test_the_running_limit():
    with Emulator("--running-limit", "2", "--running-limit-on", "wake") as emulator:
        async with emulator.client() as client:
            names = [await client.create() for _ in range(3)]
            for name in names[:2]:
                await client.run(name, "true")
            refused = await client.call("GET", f"/v1/sprites/{names[2]}/policy/network")
            assert refused.status == 429
            assert refused.json["error"] == "concurrent_sprite_limit_exceeded"
            assert (refused.json["limit"], refused.json["current_count"]) == (2, 2)
            await client.pause(names[0])
            assert (await client.run(names[2], "true")).code == 0
            assert (await client.state())["max_running"] == 2


async def test_the_running_limit_refuses_creations_too():
    with Emulator("--running-limit", "1") as emulator:
        async with emulator.client() as client:
            await client.run(await client.create(), "true")
            refused = await client.call("POST", "/v1/sprites", json={"name": "more"})
            assert (refused.status, refused.json["error"]) == (429, "concurrent_sprite_limit_exceeded")


async def test_a_long_url_is_refused(emulator):
    async with emulator.client() as client:
        name = await client.create()
        path = f"/v1/sprites/{name}/exec?cmd=echo&cmd="
        assert (await client.call("POST", path + "a" * 30000)).status == 200
        assert (await client.call("POST", path + "a" * 41000)).status == 414
