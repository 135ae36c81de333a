"""The limit on creations: created until refused, as far as a run may go. Last, since it uses the limit up."""
import time

from service import CREATES, seconds_to_wait


async def test_a_refusal_for_the_rate_says_when(service, fresh, figures):
    began, created, answer = time.monotonic(), 0, None
    while service.creates < CREATES:
        name, answer = await service.create(wait=False)
        if answer.status == 429:
            break
        assert answer.status == 201, answer
        created += 1
    took = time.monotonic() - began
    if answer.status != 429:
        figures.note("M5", f"{service.creates} creations, the last {created} in {took:.1f} s, and none was refused")
        return
    refusal = answer.json
    fields = {key: value for key, value in answer.headers.items() if key.lower().startswith(("x-ratelimit", "retry-after"))}
    figures.note("M5", f"refused after {created} more in {took:.1f} s: {refusal}, fields {fields}")
    assert refusal["error"] in ("sprite_creation_rate_limited", "concurrent_sprite_limit_exceeded")
    assert 0 < seconds_to_wait(answer) < 3600
    assert (await service.call("GET", f"/v1/sprites/{name}")).says_missing, "what was refused does not exist"
    if created:
        await service.delete(service.names[-2])
        again = await service.ask_create(name)
        figures.note("M5", f"a creation right after a delete: {again.status}")
