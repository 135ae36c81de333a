"""Redis forgets what it has acknowledged: no Sprite that one gateway has taken serves the caller of another."""
import concurrent.futures

import pytest
import redis

from fleet import PREFIX, Fleet
from processes import new_mark, running
from rig import SLOWER, until

pytestmark = pytest.mark.timeout(300 * max(1, SLOWER // 2))

MARK = "cat /tmp/was-here 2>/dev/null; echo $SPRITEGATE_EXEC_ID > /tmp/was-here"
SOON = 90


def snapshot(store):
    """Everything that Redis knows of the pool."""
    keys = list(store.scan_iter(PREFIX + "*"))
    with store.pipeline() as all_at_once:
        for key in keys:
            all_at_once.dump(key)
        return {key: text for key, text in zip(keys, all_at_once.execute()) if text}


def set_back(store, kept):
    with store.pipeline() as all_at_once:
        all_at_once.delete(*store.scan_iter(PREFIX + "*"))
        for key, text in kept.items():
            all_at_once.restore(key, 0, text)
        all_at_once.execute()


def bytes_of(fleet):
    return redis.Redis(port=fleet.redis.port)


def taken(gateway):
    return gateway.metrics().get("spritegate_pool_wakes_total", result="taken")


@pytest.mark.parametrize("does", [":", "rm -rf ~/.spritegate-taken"])
def test_a_sprite_in_use_that_redis_calls_parked(rig, does):
    """Also when its command has removed what the first gateway left there. There is room for one Sprite, so whoever comes second can only want the one that the first one has."""
    fleet = Fleet(rig, pool_max=1, pool_hot=0, pool_warm=1, pool_wait_seconds=SOON)
    store = bytes_of(fleet)
    until(lambda: fleet.states()["warm"] == 1, lambda: f"one is parked: {fleet.states()}", SOON)
    [(_, owner)] = fleet.records().values()
    others = [gateway for gateway in fleet.gateways if not owner.startswith(f"{gateway.instance}/")]
    kept, mark = snapshot(store), new_mark()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(others[0].exec, token=fleet.tokens[0], command=f"{MARK}; {does}; exec sleep {mark}", timeout_seconds=700)
        until(lambda: fleet.states()["leased"] == 1 and running(mark), "the first one has it", SOON)
        set_back(store, kept)
        second = others[1].run(MARK, token=fleet.tokens[1])
        assert second.stdout == ""
        answer = first.result(SOON)
    assert answer.status_code == 502 and answer.json()["may_have_run"], answer.text
    assert taken(others[1]) >= 1 and "had taken it before" in others[1].log
    assert fleet.sprites.state()["max_alive"] == 1
