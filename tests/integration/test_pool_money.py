"""Several gateways on one pool have one allowance a day: what one spends all have spent."""
from fleet import PREFIX, Fleet
from rig import until

DAY_MS = 86_400_000
ALLOWED = 10**9         # nano dollars: one dollar
SECOND = 68_100         # of a Sprite that works
TWO_BEATS = 7000
SOON = 90


def day_of(fleet):
    return fleet.now_ms() // DAY_MS


def say_spent(fleet, money):
    """Today and, should that end meanwhile, tomorrow."""
    day = day_of(fleet)
    fleet.store.mset({f"{PREFIX}usd:{day}": money, f"{PREFIX}usd:{day + 1}": money})


def spent(fleet):
    return int(fleet.store.get(f"{PREFIX}usd:{day_of(fleet)}"))


def refusal(gateway):
    answer = gateway.exec(command="true")
    return answer.status_code == 503 and answer.json()["code"]


def ends_of_sessions(fleet):
    """Each beat puts its end off."""
    return dict(fleet.store.zrange(PREFIX + "ses", 0, -1, withscores=True))


def until_all_refuse(fleet):
    for gateway in fleet.gateways:
        until(lambda: refusal(gateway) == "temporary-reduced-capacity", f"{gateway.instance} refuses", SOON, interval=0.5)


def refused(fleet):
    return [gateway.metrics().get("spritegate_pool_refusals_total", reason="budget") for gateway in fleet.gateways]


def test_what_one_spends_all_have_spent(rig):
    fleet = Fleet(rig, pool_max=3, pool_hot=0, pool_usd_per_day=1, pool_wait_seconds=SOON)
    other = rig.gateway(redis=fleet.redis, emulator=fleet.emulator, instance="alone", pool_max=1, pool_hot=0, pool_usd_per_day=1)
    one = fleet.gateways[0]
    say_spent(fleet, ALLOWED - 2 * SECOND)
    until(lambda: one.exec(command="sleep 3").status_code == 503, "a few commands of one gateway use up what is left", SOON)
    until_all_refuse(fleet)
    assert all(count > 0 for count in refused(fleet))
    until(lambda: spent(fleet) >= ALLOWED, lambda: f"it is told: {spent(fleet)}", SOON)
    assert int(one.exec(command="true").headers["Retry-After"]) >= 1
    assert other.run("echo hi").stdout == "hi\n", "another pool has its own"

    # What Redis loses nobody gets again on that day.
    day = day_of(fleet)
    say_spent(fleet, 0)
    ends = ends_of_sessions(fleet)
    until(lambda: all(end > ends[session] + TWO_BEATS for session, end in ends_of_sessions(fleet).items()), "all have heard of it", SOON)
    assert day != day_of(fleet) or all(refusal(gateway) == "temporary-reduced-capacity" for gateway in fleet.gateways)
