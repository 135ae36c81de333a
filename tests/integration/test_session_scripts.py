"""The scripts of named sessions on a real Redis, with the time told to them."""
import pytest

from policy_store import IDLE_MS, SCOPE, SPRITE, Caller, Sessions, Token, lease_id


@pytest.fixture
def store(rig):
    return Sessions(rig.redis().client)


def test_the_same_name_has_the_same_sprite(store):
    token = Token(store, sessions=2)
    assert [store.use(token), store.use(token)] == [" 1", SPRITE + " 0"]
    other = Token(store, sessions=2)
    assert store.use(other, sprite="sg-a-0000-2") == " 1"
    assert sorted(store.due()[0]) == [SPRITE, "sg-a-0000-2"] and not store.due()[1]


def test_a_refusal_writes_nothing(store):
    none, one = Token(store), Token(store, sessions=1)
    lease = lease_id()
    assert store.admit(one, lease, session="work").code == "granted"
    before = store.snapshot()
    assert store.admit(none, session="work").code == "session-denied"
    assert store.admit(one, session="work").code == "session-busy"
    assert store.admit(one, session="other").code == "session-limit"
    assert store.admit(one, ends="session", session="other").code == "absent"
    assert store.snapshot() == before
    assert store.admit(one, lease, session="work").what == " 1", "a repetition has its first answer"


def test_it_is_busy_as_long_as_its_command_has_a_lease(store):
    token = Token(store, sessions=1)
    lease = lease_id()
    assert store.admit(token, lease, session="work", want=1000).code == "granted"
    assert store.bind(token, "work", lease) == store.bind(token, "work", lease) == ["ok"]
    assert store.bind(token, "work", lease, "sg-a-0000-2") == ["ended"]
    assert store.admit(token, session="work").code == "session-busy"
    store.pass_ms(17_000)       # nobody renews it: its gateway is dead
    assert store.admit(token, session="work").what == SPRITE + " 0"
    assert store.release(token, "work", lease) == ["ended"], "another command has it now"
    assert store.bind(token, "work", lease) == ["ended"]


def test_what_was_not_started_leaves_it_fresh(store):
    token = Token(store, sessions=1)
    lease = lease_id()
    granted = store.admit(token, lease, session="work")
    assert store.bind(token, "work", lease) == ["ok"] and store.release(token, "work", lease, fresh=1) == ["ok"]
    store.settle(token, lease, granted, refund=True)
    assert [store.use(token), store.use(token)] == [SPRITE + " 1", SPRITE + " 0"]


def test_without_a_sprite_it_is_forgotten(store):
    token = Token(store, sessions=1)
    lease = lease_id()
    granted = store.admit(token, lease, session="one")
    assert store.release(token, "one", lease) == ["ok"]
    store.settle(token, lease, granted, refund=True)
    assert store.use(token, "two") == " 1"


def test_names_that_never_began_do_not_pile_up(store):
    """Their lease is gone and nobody has said that the session is free."""
    token, names = Token(store, sessions=2), f"sg:{{g}}:s:%s"
    store.use(token)
    lease = lease_id()
    granted = store.admit(token, lease, session="lost")
    store.settle(token, lease, granted, refund=True)
    assert set(store.redis.hkeys(names % token.kid)) == {"work", "lost"}
    assert [told.split(":")[0] for told in store.peek(token, "sessions").what.split()] == ["work"]
    assert store.admit(token, session="next").code == "granted"
    assert set(store.redis.hkeys(names % token.kid)) == {"work", "next"}
    assert store.bind(token, "lost", lease) == store.release(token, "lost", lease) == ["ended"]


@pytest.mark.parametrize("idle, age", [(5000, 600_000), (600_000, 5000)])
def test_it_ends_by_its_times(store, idle, age):
    token = Token(store, sessions=1)
    lease = lease_id()
    granted = store.admit(token, lease, session="work", want=60_000)
    assert store.bind(token, "work", lease, idle=idle, age=age) == ["ok"]
    store.pass_ms(6000)
    assert store.due() == ([SPRITE], []), "not while a command runs in it"
    assert store.release(token, "work", lease, idle=idle, age=age) == ["ok"]
    store.settle(token, lease, granted)
    store.pass_ms(6000)
    assert store.peek(token, "sessions").what == ""
    lease = lease_id()
    assert store.admit(token, lease, session="work").what == " 1", "its name begins anew"
    assert store.bind(token, "work", lease, "sg-a-0000-2") == ["ok"]
    assert store.due()[1] == [SPRITE] and store.due()[1] == [], "told once"
    store.pass_ms(61_000)
    assert SPRITE in store.due()[1], "whoever was told has not done it"
    assert store.session("gone", SPRITE) == ["ok"]
    assert store.due()[0] == ["sg-a-0000-2"]


def test_closing_and_losing(store):
    token = Token(store, sessions=2)
    store.use(token)
    store.use(token, "other", "sg-a-0000-2")
    assert store.admit(token, ends="session", session="work").code == "session-closed"
    assert store.admit(token, ends="session", session="work").code == "absent"
    assert store.session("lost", "sg-a-0000-2") == store.session("lost", "sg-a-0000-3") == ["ok"]
    assert sorted(store.due()[1]) == [SPRITE, "sg-a-0000-2"]
    assert store.peek(token, "sessions").what == ""
    for sprite in SPRITE, "sg-a-0000-2":
        store.session("gone", sprite)
    assert store.due() == ([], []) and not store.redis.exists("sg:{g}:sn", "sg:{g}:ss", f"sg:{{g}}:pool:{SCOPE}:kept")


def test_closing_marks_the_command_that_runs(store):
    token = Token(store, sessions=1)
    lease = lease_id()
    store.admit(token, lease, session="work")
    store.bind(token, "work", lease)
    assert store.admit(token, ends="session", session="work").code == "session-closed"
    assert store.redis.get(f"sg:{{g}}:kill:{lease}") == lease
    assert store.due() == ([SPRITE], []), "it is killed first"
    store.pass_ms(3000)
    assert store.due() == ([SPRITE], [SPRITE])


def test_those_of_a_revoked_token_end(store):
    token = Token(store, sessions=1)
    store.use(token)
    token.set(status="suspended")
    assert store.due() == ([SPRITE], [])
    token.set(status="revoked")
    assert store.due() == ([SPRITE], [SPRITE])


def test_who_has_no_token_has_none_that_could_be_revoked(store):
    caller = Caller()
    store.policy("staff", ver=1, sessions=1)
    store.use(caller, policy="staff")
    assert store.due() == ([SPRITE], [])
    assert store.use(caller, policy="staff") == SPRITE + " 0"
    store.pass_ms(IDLE_MS)
    assert store.due() == ([SPRITE], [SPRITE])
