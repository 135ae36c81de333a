"""Deleting a Sprite: it ends at once, and nothing finds it any more."""
import time

import pytest

from service import Refused, is_session


async def test_a_deleted_sprite_is_gone(service, fresh):
    name = fresh[0]
    async with service.control(name) as control:
        result = await control.start("sleep", "603")
        await control.follow(is_session, result)
        answer = await service.delete(name)
        assert answer.status in range(200, 205)
        began = time.monotonic()
        while await control.frame() is not None:
            pass
        assert time.monotonic() - began < 20, "its sockets end"
    assert (await service.call("GET", f"/v1/sprites/{name}")).says_missing
    assert name not in await service.listed(name), "the second witness agrees at once"
    assert (await service.delete(name)).says_missing
    assert (await service.call("GET", f"/v1/sprites/{name}/policy/network")).status == 404
    with pytest.raises(Refused) as refused:
        async with service.control(name):
            pass
    assert refused.value.status == 404
