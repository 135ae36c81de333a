"""The control plane: authorisation, creation, objects, lists, limits."""
import asyncio
import json
import re
import time
from types import SimpleNamespace

import aiohttp
import pytest
import yarl

from emulator_client import TOKEN, Emulator
from sprite import Sprite


async def test_a_wrong_or_missing_token_is_refused(emulator):
    for token in ("wrong", None, ""):
        async with emulator.client(token) as client:
            for method, path in (("GET", "/v1/sprites"), ("POST", "/v1/sprites/x/exec?cmd=true"), ("GET", "/nowhere")):
                answer = await client.call(method, path)
                assert (answer.status, answer.json) == (401, {"error": "authentication failed"})
                assert answer.headers["Content-Type"] == "application/json; charset=utf-8"


async def test_a_wrong_token_opens_no_socket(emulator):
    async with emulator.client() as client:
        name = await client.create()
    async with emulator.client("wrong") as stranger:
        for path in ("control", "exec?cmd=true", "exec/1", "proxy"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await stranger.session.ws_connect(f"/v1/sprites/{name}/{path}")
            assert refused.value.status == 401, path


MINT, FLY = "/v1/organizations/emulator/tokens", {"Authorization": f"FlyV1 {TOKEN}"}


async def test_a_minted_token_is_accepted_everywhere(emulator):
    async with emulator.client(None) as client:
        minted = [await client.call("POST", MINT, headers=FLY, json={"description": "one", **more}) for more in ({}, {"invite_code": "x"})]
        assert [(answer.status, list(answer.json)) for answer in minted] == [(201, ["token"])] * 2
        tokens = [answer.json["token"] for answer in minted]
    assert tokens[0] != tokens[1] and all(len(token.split("/")) == 4 for token in tokens)
    for token in (*tokens, TOKEN):
        async with emulator.client(token) as client:
            name = await client.create()
            assert (await client.run(name, "echo", "hi")).out == "hi\n"
            async with client.control(name) as control:
                assert (await control.run("true")).code == 0
    async with emulator.client(tokens[0][:-1]) as client:
        assert (await client.call("GET", "/v1/sprites")).status == 401


async def test_only_a_fly_token_mints(emulator):
    async with emulator.client(None) as client:
        minted = (await client.call("POST", MINT, headers=FLY, json={"description": "one"})).json["token"]
        for given in ("", f"Bearer {TOKEN}", f"Bearer {minted}", f"FlyV1 {minted}", "FlyV1 wrong", "FlyV1", TOKEN):
            answer = await client.call("POST", MINT, headers={"Authorization": given}, json={"description": "one"})
            assert (answer.status, answer.json) == (401, {"error": "authentication failed"}), given
        assert (await client.call("GET", "/v1/sprites", headers=FLY)).status == 401


@pytest.mark.parametrize("body", ["", "{", "[]", "{}", '{"description": 7}', '{"description": "x", "invite_code": 7}'])
async def test_a_bad_request_mints_nothing(emulator, body):
    async with emulator.client(None) as client:
        answer = await client.call("POST", MINT, headers=FLY, data=body)
        assert (answer.status, list(answer.json)) == (400, ["errors"])
        other = await client.call("POST", "/v1/organizations/other/tokens", headers=FLY, json={"description": "x"})
        assert (other.status, other.json) == (404, {"error": "organization not found"})


async def test_whose_answer_it_is(emulator):
    """Both layers sign as the edge; the control plane alone has an id of the request, the agent alone a version."""
    async with emulator.client() as client:
        name = await client.create()
        answers = {path: (await client.call("GET", f"/v1/sprites{path}")).headers for path in ("", f"/{name}", f"/{name}/exec", f"/{name}/checkpoints")}
        for path, headers in answers.items():
            assert headers["Server"].startswith("Fly/") and headers["Via"] == "1.1 fly.io" and re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{26}-[a-z]{3}", headers["Fly-Request-Id"])
            agent = path.count("/") == 2
            assert ("Sprite-Version" in headers, "X-Request-Id" in headers) == (agent, not agent), path
            assert headers.get("Cache-Control") == (None if agent else "max-age=0, private, must-revalidate"), path
            assert headers["Content-Type"] == ("application/json" if agent else "application/json; charset=utf-8"), path


async def test_times_have_six_digits_and_are_null_when_they_never_were(emulator):
    async with emulator.client() as client:
        name = await client.create()
        told = (await client.call("GET", f"/v1/sprites/{name}")).json
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", told[key]) for key in ("created_at", "updated_at")), told
        assert (told["last_running_at"], told["last_warming_at"], told["environment_version"]) == (None, None, None)


async def test_paths_are_decoded(emulator):
    async with emulator.client() as client:
        await client.create("decoded")
        found = await client.call("GET", yarl.URL("/v1/sprites/%64ecode%64", encoded=True))
        assert (found.status, found.json["name"]) == (200, "decoded")


async def test_a_method_that_is_not_there(emulator):
    async with emulator.client() as client:
        name = await client.create()
        for method, path, allowed in (("PATCH", "", "DELETE,GET,HEAD,PUT"), ("PUT", "/checkpoint", "POST"), ("DELETE", "/exec", "GET,HEAD,POST")):
            refused = await client.call(method, f"/v1/sprites/{name}{path}")
            assert (refused.status, refused.json) == (405, {"error": "method not allowed"}), path
            assert set(refused.headers["Allow"].split(",")) - {"HEAD"} == set(allowed.split(",")) - {"HEAD"}


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
        for field in ({"labels": [1]}, {"environment": {"A": 1}}, {"config": "large"}, {"runtime": "other"},
                      {"wait_for_capacity": "yes"}, {"url_settings": {"private_access": "all"}}):
            answer = await client.call("POST", "/v1/sprites", json={"name": "bad-body", **field})
            assert (answer.status, len(answer.json["errors"])) == (400, 1), field
        assert await client.status("bad-body") is None


async def test_what_a_sprite_was_made_with_is_told(emulator):
    async with emulator.client() as client:
        made = {"config": {"cpus": 2}, "environment": {"A": "b"}, "runtime": "dev",
                "url_settings": {"auth": "public", "private_access": "admins"}}
        told = (await client.call("POST", "/v1/sprites", json={"name": "made-with", **made})).json
        assert {key: told[key] for key in ("config", "environment", "url_settings")} == {
            key: made[key] for key in ("config", "environment", "url_settings")}


async def test_missing_sprites_as_recorded():
    with Emulator("--missing-500") as emulator:
        async with emulator.client() as client:
            for method, status, text in (("GET", 500, "failed to retrieve sprite"), ("DELETE", 500, "failed to delete sprite"),
                                         ("PUT", 404, "sprite not found")):
                answer = await client.call(method, "/v1/sprites/nobody")
                assert (answer.status, answer.json) == (status, {"error": text})
            assert (await client.call("GET", "/v1/sprites/nobody/exec")).status == 404


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
            for nonsense in ("0", "-1", "many", ""):
                assert len((await client.call("GET", "/v1/sprites", params={"max_results": nonsense})).json["sprites"]) == 50
            two = (await client.call("GET", "/v1/sprites?prefix=page&max_results=2&bulk_load=true")).json
            assert [sprite["name"] for sprite in two["sprites"]] == names[:2]
            assert {tuple(sprite) for sprite in two["sprites"]} == {("name", "org_slug", "updated_at")}


async def test_the_end_of_a_list_as_recorded():
    with Emulator("--has-more-always") as emulator:
        async with emulator.client() as client:
            page = (await client.call("GET", "/v1/sprites")).json
            assert (page["sprites"], page["next_continuation_token"], page["has_more"]) == ([], None, True)


async def test_the_list_as_a_stream():
    with Emulator("--list-heartbeat", "100ms", "--running-limit", "7") as emulator:
        async with emulator.client() as client:
            for name in ("seen-a", "seen-b", "other"):
                await client.create(name)
            headers = {"Accept": "application/x-ndjson"}
            async with client.session.get("/v1/sprites?prefix=seen", headers=headers) as stream:
                assert (stream.status, stream.headers["Content-Type"]) == (200, "application/x-ndjson")

                async def line(wanted):
                    async for raw in stream.content:
                        if wanted(event := json.loads(raw)):
                            return event

                first, second = await line(lambda event: True), await line(lambda event: True)
                assert [(event["name"], event["status"]) for event in (first, second)] == [("seen-a", "cold"), ("seen-b", "cold")]
                assert "type" not in first and first["running_version"] is None and first["last_running_at"] is None
                assert first["org"] == {"name": "emulator", "running": 0, "warm": 0, "cold": 3, "running_limit": 7, "warm_limit": None}
                heartbeat = await line(lambda event: True)
                assert heartbeat["type"] == "heartbeat" and "name" not in heartbeat and heartbeat["org"]["cold"] == 3
                await client.run("other", "true")
                await client.run("seen-b", "true")
                running = await line(lambda event: "name" in event)
                assert (running["name"], running["status"], running["org"]["running"]) == ("seen-b", "running", 2)
                assert running["running_version"] and running["last_running_at"]
                await client.pause("seen-b")
                assert (await line(lambda event: "name" in event))["status"] == "warm"
                await client.create("seen-c")
                assert (await line(lambda event: "name" in event))["name"] == "seen-c"
                await client.call("DELETE", "/v1/sprites/seen-c")
                gone = await line(lambda event: event["org"]["cold"] == 1)
                assert (gone["type"], gone["org"]["warm"]) == ("heartbeat", 1)


async def test_the_list_tells_the_limits():
    with Emulator("--running-limit", "7", "--warm-limit", "5") as emulator:
        async with emulator.client() as client:
            await client.create("one")
            told = (await client.call("GET", "/v1/sprites")).json
            counters = {"name": "emulator", "running": 0, "warm": 0, "cold": 1, "running_limit": 7, "warm_limit": 5}
            assert told["org"] == counters and {key: told[key] for key in counters} == counters
    with Emulator("--running-limit", "7", "--list-counters", "false") as emulator:
        async with emulator.client() as client:
            assert sorted((await client.call("GET", "/v1/sprites")).json) == ["has_more", "next_continuation_token", "sprites"]


async def test_what_is_too_many_warm_turns_cold():
    with Emulator("--warm-limit", "2") as emulator:
        async with emulator.client() as client:
            names = [await client.create() for _ in range(3)]
            for name in names:
                await client.run(name, "true")
                await client.pause(name)
            await client.until_status(names[0], "cold")
            assert [await client.status(name) for name in names] == ["cold", "warm", "warm"]
            await client.run(names[0], "true")
            await client.pause(names[0])
            await client.until_status(names[1], "cold")


async def test_one_that_is_being_paused_is_the_last_one_paused():
    """Another pause may end meanwhile, and then the warm one that was paused first turns cold."""
    seen = []

    async def freeze():
        seen.append((sprite.status, sprite.paused_at))

    sprite = SimpleNamespace(
        transition=asyncio.Lock(), status="running", holds=0, paused_at=1.0, set_timer=lambda *_: None, cut=lambda: None,
        sandbox=SimpleNamespace(freeze=freeze), settings=SimpleNamespace(cold_after=None),
        world=SimpleNamespace(paused=0, keep_to_warm_limit=lambda: None))
    before = time.monotonic()
    await Sprite.pause(sprite)
    (status, paused_at), = seen
    assert status == "warm" and paused_at >= before


async def test_upgrade_restart_and_check(emulator):
    async with emulator.client() as client:
        name = await client.create()
        path = f"/v1/sprites/{name}"
        healthy = await client.call("GET", path + "/check")
        assert (healthy.status, healthy.json["sprite_name"], healthy.json["status"]) == (200, name, "healthy")
        assert healthy.json["sprite_id"] == (await client.call("GET", path)).json["id"]
        assert await client.status(name) == "cold"
        upgraded = await client.call("POST", path + "/upgrade", headers={"Content-Type": "application/json"})
        assert (upgraded.status, upgraded.body) == (204, b"")
        assert (await client.shell(name, "echo kept > ~/file; echo lost > /tmp/file")).code == 0
        async with client.exec(name, "sleep", "600", max_run_after_disconnect="0") as ws:
            await ws.frames_until(lambda frame: isinstance(frame, dict) and frame["type"] == "session_info")
            restarted = await client.call("POST", path + "/restart")
            assert (restarted.status, restarted.json["sprite_name"]) == (200, name)
            assert len(restarted.json["machine_id"]) == 14 and restarted.json["message"]
            await ws.gone()
        assert await client.status(name) == "running"
        assert (await client.shell(name, "cat ~/file; cat /tmp/file; pgrep -c sleep")).out == "kept\n0\n"
        for method, action in (("POST", "upgrade"), ("POST", "restart"), ("GET", "check")):
            missing = await client.call(method, f"/v1/sprites/nobody/{action}")
            assert (missing.status, missing.json) == (404, {"error": "sprite not found"})
        assert "X-Request-Id" in healthy.headers and "Sprite-Version" not in restarted.headers


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


async def test_a_creation_may_wait_for_capacity():
    with Emulator("--running-limit", "1") as emulator:
        async with emulator.client() as client:
            first = await client.create()
            await client.run(first, "true")
            waiting = asyncio.ensure_future(client.call("POST", "/v1/sprites", json={"name": "more", "wait_for_capacity": True}))
            refused = await client.call("POST", "/v1/sprites", json={"name": "other", "wait_for_capacity": False})
            assert refused.status == 429
            await client.call("DELETE", f"/v1/sprites/{first}")
            assert (await waiting).status == 201


async def test_a_long_url_is_refused(emulator):
    async with emulator.client() as client:
        name = await client.create()
        path = f"/v1/sprites/{name}/exec?cmd=echo&cmd="
        assert (await client.call("POST", path + "a" * 30000)).status == 200
        assert (await client.call("POST", path + "a" * 41000)).status == 414
