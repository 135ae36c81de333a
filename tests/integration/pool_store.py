"""The records of a shared pool: the script in a real Redis, and a reference model of it."""
import collections
import dataclasses
import math
import pathlib

CLOCK = "redis.call('TIME')"
TEXT = (pathlib.Path(__file__).resolve().parent.parent.parent / "policy/scripts/pool.lua").read_text(encoding="utf-8")
START = 1_795_003_200_000       # ms
SECOND = 1000
BEAT, SESSION, RECOVERY, STRIKE, RELIST, KEPT = 5 * SECOND, 15 * SECOND, 20 * SECOND, 60 * SECOND, 10 * SECOND, 300 * SECOND
LATE = 90 * SECOND
DAY = 86_400 * SECOND
HANDED, MADE, TENANTS = 25, 2000, 32
LINGER, QUIET, LIMIT, PLACE, CROWD, LEAVING = 35 * SECOND, 100 * SECOND, 120 * SECOND, 500, 2 * SECOND, 10 * SECOND

FLEET = ("total own warm ended instances created money closed limit window recovering list superseded "
         "hot_target leased way claims day_left crowd").split()
MEMBER = "name state age idle owned tenant uses left exec parked".split()
EXISTING = {"preparing", "warm", "hot", "leased", "recycling", "quarantine"}


def tenants_in(told):
    """Of a beat's answer: {tenant: how many it holds elsewhere}"""
    at = 1 + len(FLEET)
    return dict(zip(told[at + 1::2], told[at + 2:at + 1 + 2 * told[at]:2]))


def names_in(told):
    """Of a beat's answer: what is not ours any more."""
    at = 1 + len(FLEET)
    return told[at + 1 + 2 * told[at]:]


def name_of(instance, number, generation="0a1b"):
    return f"sg-{instance}-{generation}-{number:026d}"


class PoolStore:
    """The script. With `clock` set (ms) it is told the time; the shipped text cannot be."""

    def __init__(self, redis, pool="p", clock=None):
        self.redis, self.clock = redis, clock
        self.prefix = f"sg:{{g}}:pool:{pool}:"
        self.text = TEXT
        if clock is not None:
            assert TEXT.count(CLOCK) == 1
            # Taken off the end, so that what follows the arguments is as it is without it.
            self.text = TEXT.replace(CLOCK, "{math.floor(table.remove(ARGV) / 1000), 0}").replace(
                "math.floor(tonumber(clock[2]) / 1000)", "tonumber(table.remove(ARGV))")
        self.script = redis.register_script(self.text)

    def call(self, op, incarnation, session, turn, *args):
        times = [] if self.clock is None else [self.clock % 1000, self.clock]
        return self.script(keys=[self.prefix + "inc"], args=[op, incarnation, session, turn, *args, *times])

    def state(self):
        """Everything that the model has, as it has it."""
        redis, prefix = self.redis, self.prefix
        hashes = {key: redis.hgetall(prefix + key) for key in ("m", "n", "ins", "said", "want", "turn", "lim", "back")}
        sets = {key: dict(redis.zrange(prefix + key, 0, -1, withscores=True)) for key in ("ses", "listers", "warm", "made", "s1", "s2", "gone", "limits", "crowd", "asked", "left")}
        members = {key.removeprefix(prefix): redis.smembers(key) for key in redis.scan_iter(f"{prefix}of:*")}
        members |= {key.removeprefix(prefix): redis.hgetall(key) for key in redis.scan_iter(f"{prefix}lost:*")}
        return {**hashes, **sets, **members, "asleep": redis.smembers(prefix + "asleep"), "n": {word: int(count) for word, count in hashes["n"].items() if int(count)},
                **{key: redis.get(prefix + key) for key in ("inc", "rec", "listed", "sweep")}}


@dataclasses.dataclass
class Record:
    state: str
    session: str
    turn: int
    since: int
    created: int
    owned: int = 0
    tenant: str = "0"
    uses: int = 0
    exec: str = ""
    till: int = 0
    parked: int = 0

    def text(self):
        return ":".join(str(getattr(self, field.name)) for field in dataclasses.fields(self))

    def is_stock(self):
        return self.state == "warm" and not self.owned


@dataclasses.dataclass
class KeptSprite:
    """Of a named session."""
    lease: str = ""     # of its last command, until that is known to have ended
    till: int = 0       # when that lease ends
    used: int = 0


class PoolModel:
    """The rules of docs/decisions/0012 over again, on dictionaries. Where the script may choose, `told` is what it chose."""

    def __init__(self):
        self.flush()

    def flush(self):
        self.inc = self.rec = self.listed = self.sweep_by = None
        self.instances, self.sessions, self.said, self.want, self.turns, self.listers = {}, {}, {}, {}, {}, {}
        self.members, self.made, self.strange, self.missing, self.gone = {}, {}, {}, {}, {}
        self.lost, self.seen, self.money, self.back = {}, {}, {}, {}
        self.limit, self.window, self.till = 0, 0, 0
        self.asked = {}
        self.limits, self.waits, self.asleep = {}, {}, set()
        self.kept, self.left = {}, {}

    def call(self, now, op, incarnation, session, turn, *args, told):
        self.now, self.session, self.turn, self.told, self.former = now, session, turn, told, incarnation
        if op != "join":
            if self.inc != incarnation:
                return ["flushed"]
            if self.sessions.get(session, 0) <= now:
                return ["fenced"]
        return getattr(self, op)(*args)

    # --- parts ---

    @staticmethod
    def bounded(span, longest):
        return max(0, min(span, longest))

    def own(self, session):
        return {name for name, record in self.members.items() if record.session == session}

    def recovering(self):
        rec = self.rec or 0
        if left := self.bounded(rec - self.now, RECOVERY):
            return left
        if not self.listed:
            return BEAT
        back = sum(known > 0 for known in self.back.values())
        if back >= max(map(abs, self.back.values()), default=0) or self.listed >= rec + LATE:
            return 0
        return max(BEAT, self.bounded(rec + LATE - self.now, LATE))

    def first(self):
        if self.turn <= self.turns.get(self.session, 0):
            return False
        self.turns[self.session] = self.turn
        return True

    def put(self, name, record):
        old = self.members.get(name)
        as_it_was = old and (old.state == "warm" or (old.state == "preparing" and old.parked))
        if record.state == "warm" and not as_it_was:
            record = dataclasses.replace(record, parked=max(self.now, record.parked + 1))
        self.members[name] = record
        self.strange.pop(name, None)

    def hand_over(self, name, state):
        old = self.members[name]
        self.put(name, dataclasses.replace(old, state=state, session=self.session, turn=self.turn,
                                           since=old.since if state == old.state else self.now))

    def may_run(self, told):
        if told:
            self.limits[told] = self.now + LIMIT
        return min((limit for limit, till in self.limits.items() if till > self.now), default=0)

    def sessions_running(self):
        uncounted = self.kept.keys() - self.members.keys() - self.asleep
        quiet = {name for name in uncounted if not self.session_runs(self.kept[name])}
        self.asleep |= quiet
        return len(uncounted - quiet)

    def running(self):
        return len(self.strange) + self.sessions_running() + sum(record.state != "warm" or self.lingers(record) for record in self.members.values())

    def session_runs(self, kept):
        if kept.lease and kept.till > self.now:
            return True
        since = kept.used
        if kept.lease:
            since = self.left[kept.lease] = min(self.left.get(kept.lease, math.inf), self.now)
        return self.bounded(since + QUIET - self.now, QUIET) > 0

    def total(self):
        return len(self.members) + len(self.strange) + len(self.kept)

    def lingers(self, record):
        return self.bounded(record.since + LINGER - self.now, LINGER) > 0

    def crowd(self):
        return [session for session, till in self.waits.items() if self.now < till <= self.now + CROWD]

    def waiting(self):
        return {session: self.asked[session] for session in self.crowd() if session in self.asked}

    def to_make_way(self):
        limit, others = self.may_run(0), self.waiting().keys() - {self.session}
        if not limit or not others:
            return 0
        wanted = sum(max(1, self.said[other][2]) if other in self.said else 1 for other in others)
        leaving = sum(record.state == "destroying" and record.session != self.session and self.bounded(record.since + LEAVING - self.now, LEAVING) > 0
                      for record in self.members.values())
        return max(0, wanted - leaving - max(0, limit - self.running()))

    def is_full(self, limit, for_stock):
        waiting = self.waiting()
        earlier = sum(at < waiting.get(self.session, math.inf) for at in waiting.values())
        return limit and ((for_stock and self.crowd()) or self.running() + earlier >= limit)

    def crowded(self, for_stock):
        if for_stock:
            return ["crowded", BEAT]
        if self.session not in self.crowd() or self.session not in self.asked:
            self.asked[self.session] = self.now
        self.waits[self.session] = self.now + CROWD
        return ["crowded", PLACE]

    def describe(self, name):
        r = self.members[name]
        return [name, r.state, max(0, self.now - r.created), max(0, self.now - r.since), r.owned, r.tenant, r.uses, max(0, r.till - self.now), r.exec,
                r.parked]

    def chosen(self, width):
        """Names in the script's answer, when they make one."""
        return self.told[1::width] if self.told[:1] == ["ok"] else []

    def in_order(self, rows):
        """The rows in the order in which the script told them."""
        order = {name: at for at, name in enumerate(self.told)}
        return ["ok", *sum(sorted(rows, key=lambda row: order.get(row[0], -1)), [])]

    def revoke(self, owner, name):
        if owner in self.sessions:
            self.lost.setdefault(owner, {})[name] = 0

    # --- operations ---

    def may_list(self):
        living = [session for session, end in self.sessions.items() if end > self.now]
        if self.sweep_by:
            who, at, since = self.sweep_by
            if (who, at) == (self.session, self.turn):
                return 1
            over = self.now - since - (STRIKE if self.listed and not self.recovering() else RELIST)
            if since <= self.now:
                if over < 0:
                    return 0
                if over < 2 * BEAT and min(self.listers.get(one, 0) for one in living) < self.listers.get(self.session, 0):
                    return 0
        self.sweep_by = self.session, self.turn, self.now
        self.listers[self.session] = self.now
        return 1

    def tenants(self, living):
        """What others have leased, and who has it, or has claimed it lately: those that have most first."""
        leased = [record.tenant for record in self.members.values() if record.state == "leased" and record.session != self.session]
        held = collections.Counter(leased)
        held.update({tenant: 0 for other in living - {self.session} for tenant in self.want.get(other, "").split()})
        told = sorted(held.items(), key=lambda item: (-item[1], item[0]))[:TENANTS]
        return len(leased), [len(told), *sum(map(list, told), [])]

    def renew(self, hot, leased, waiting, claims, money, limit, window, closed, acknowledged, want="", may_run=0):
        now, me = self.now, self.session
        self.sessions = {session: min(end, now + SESSION) for session, end in self.sessions.items()} | {me: now + SESSION}
        before = self.said[me][4] if me in self.said else money
        if money > before:
            self.money[now // DAY] = self.money.get(now // DAY, 0) + money - before
        self.said[me], self.want[me] = (hot, leased, waiting, claims, money), want
        self.may_run(may_run)
        self.limits = {limit: min(till, now + LIMIT) for limit, till in self.limits.items() if till > now}
        self.left = {lease: at for lease, at in self.left.items() if at > now - KEPT}
        self.sessions_running()
        if limit and window:
            self.limit, self.window = limit, window
        closed = max(min(closed, KEPT), self.bounded(self.till - now, KEPT))
        if closed:
            self.till = now + closed
        self.gone = {name: at for name, at in self.gone.items() if at > now - KEPT}
        self.trim_made()
        living = {session for session, end in self.sessions.items() if end > now}
        ended = self.sessions.keys() - living
        parked = [record for record in self.members.values() if record.is_stock() and record.session != me]
        hot_target, claims = (sum(self.said[other][i] for other in living - {me} if other in self.said) for i in (0, 3))
        leased, tenants = self.tenants(living)
        instance, epoch = me.split("/")
        created = sum(at > now - self.window for at in self.made.values()) if self.window else 0
        may_list = self.may_list()
        lost = self.lost[me] = {name: at for name, at in self.lost.get(me, {}).items() if not 0 < at <= acknowledged}
        told = self.told[-min(len(lost), HANDED):] if lost else []
        assert set(told) <= lost.keys() and len(set(told)) == len(told)
        lost |= {name: self.turn for name in told if not lost[name]}
        return [self.total(), len(self.own(me)), len(parked), sum(len(self.own(one)) for one in ended), len(living), created,
                str(self.money.get(now // DAY, 0)), closed, self.limit, self.window, int(self.recovering() > 0), may_list,
                int(self.instances.get(instance) != int(epoch)), hot_target, leased, self.to_make_way(), claims,
                DAY - now % DAY, len(set(self.crowd()) - {me}), *tenants, *told]

    def trim_made(self):
        latest = sorted(self.made.items(), key=lambda item: (item[1], item[0]))[-MADE:]
        self.made = {name: at for name, at in latest if at <= self.now}

    def beat(self, *said):
        instance = self.session.partition("/")[0]
        if instance in self.back:
            self.back[instance] = abs(self.back[instance])
        return ["ok", *self.renew(*said)]

    def join(self, instance, incarnation, known=0):
        fresh = self.inc is None
        if fresh:
            self.inc, self.rec = incarnation, self.now + RECOVERY
        if known and self.former != self.inc:
            self.back[instance] = -known
        epoch = max(self.instances.get(instance, 0) + 1, self.now)
        self.instances[instance] = epoch
        self.session = f"{instance}/{epoch}"
        answer = ["ok", self.inc, self.session, int(fresh), *self.renew(0, 0, 0, 0, 0, 0, 0, 0, 0)]
        del self.said[self.session]
        return answer

    def leave(self):
        self.sessions[self.session] = self.now
        return ["ok"]

    def reserve(self, name, most, enough, count, window, may_run=0):
        may_run = self.may_run(may_run)
        again, record = not self.first(), self.members.get(name)
        if record:
            return ["ok"] if record.session == self.session else ["taken", 0]
        if again:
            return ["stale"]
        if self.recovering():
            return ["recovering", self.recovering()]
        if self.total() >= most:
            return ["full", 0]
        stock = sum(record.is_stock() or record.state in ("intent", "creating", "preparing", "quarantine", "hot") for record in self.members.values())
        if enough and stock >= enough:
            return ["stock", BEAT]
        if self.bounded(self.till - self.now, KEPT):
            return ["closed", self.bounded(self.till - self.now, KEPT)]
        if count:
            self.trim_made()
            lately = sorted((at for at in self.made.values() if at > self.now - window), reverse=True)
            if len(lately) >= count:
                return ["budget", max(1, lately[count - 1] + window - self.now)]
        if self.is_full(may_run, enough > 0):
            return self.crowded(enough > 0)
        if not enough:
            self.asked.pop(self.session, None)
        self.put(name, Record("intent", self.session, self.turn, self.now, self.now))
        self.made[name] = self.now
        return ["ok"]

    def apply(self, entry, restoring):
        name, state, owned, tenant, uses, age, lease, exec_id = entry.split(":")
        record, me = self.members.get(name), self.session
        self.lost.get(me, {}).pop(name, None)
        if record and record.session != me:
            if not (restoring and record.state == "warm" and state not in ("warm",) and self.bounded((self.rec or 0) - self.now, RECOVERY)):
                return "revoked"
            self.revoke(record.session, name)
        elif record and self.turn <= record.turn:
            return "ok"
        if state == "gone":
            if record:
                del self.members[name]
                self.missing.pop(name, None)
                self.gone[name] = self.now
            return "ok"
        if not record and not restoring:
            return "absent"
        since = record.since if record and record.state == state else self.now
        self.put(name, Record(state, me, self.turn, since, record.created if record else self.now - int(age), int(owned), tenant, int(uses), exec_id,
                              self.now + int(lease) if int(lease) else 0, record.parked if record else 0))
        return "ok"

    def note(self, *entries):
        return ["ok", *[self.apply(entry, False) for entry in entries]]

    def restore(self, *entries):
        return ["ok", *[self.apply(entry, True) for entry in entries]]

    def take(self, name, to, generation, may_run=0, for_stock=0):
        may_run = self.may_run(may_run) if to == "preparing" else 0 * self.may_run(may_run)
        again, me = not self.first(), self.session
        if name:
            record = self.members.get(name)
            if record and (record.session, record.state) == (me, to):
                return ["ok", *self.describe(name)]
            if again:
                return ["stale"]
        elif again:
            rows = [self.describe(found) for found in self.own(me) if self.members[found].turn == self.turn]
            return self.in_order(rows) if rows else ["stale"]
        if self.recovering() and not (name in self.members and self.members[name].session == me):
            return ["none"]
        if self.recovering() and may_run:
            return ["recovering", self.recovering()]

        def right(found):
            record = self.members.get(found)
            return record and record.state == "warm" and (record.session == me or record.is_stock()) and \
                (to != "preparing" or found.split("-")[-2] == generation)
        if name:
            found = name if right(name) else None
        else:
            parked = [found for found, record in self.members.items() if record.is_stock() and record.session != me and right(found)]
            found = max(parked, key=lambda found: (self.members[found].since, found), default=None)
        if not found:
            return ["none"]
        if not self.lingers(self.members[found]) and self.is_full(may_run, for_stock):
            return self.crowded(for_stock)
        if to == "preparing" and not for_stock:
            self.asked.pop(me, None)
        if self.members[found].session != me:
            self.revoke(self.members[found].session, found)
        self.hand_over(found, to)
        return ["ok", *self.describe(found)]

    def run(self, name, may_run):
        may_run = self.may_run(may_run)
        if not self.first() and self.turn < self.turns[self.session]:
            return ["stale"]
        if may_run and name in self.asleep:
            if self.recovering():
                return ["recovering", self.recovering()]
            if self.is_full(may_run, False):
                return self.crowded(False)
            self.asked.pop(self.session, None)
        self.asleep.discard(name)
        return ["ok"]

    def adopt(self, most, own):
        if self.first():
            ended = [session for session, end in self.sessions.items() if end <= self.now]
            orphans = set().union(*(self.own(one) for one in ended)) if ended else set()
            names = [name for name in self.chosen(len(MEMBER)) if name in orphans]
            assert len(names) == min(most, HANDED, len(orphans)), (names, orphans, most)
            for name in names:
                self.hand_over(name, "warm" if self.members[name].state == "warm" else "destroying")
            for dead in ended:
                if not self.own(dead):
                    for table in (self.sessions, self.said, self.want, self.turns, self.listers, self.lost, self.waits, self.asked):
                        table.pop(dead, None)
        return self.in_order([self.describe(name) for name in self.own(self.session) if own or self.members[name].turn == self.turn])

    def sweep(self, number, last, count, *names):
        if not self.sweep_by or self.sweep_by[0] != self.session or count > 5000:
            return ["late"]
        seen = self.seen.setdefault(number, set())
        seen |= set(names)
        if last == "more":
            return ["ok"]
        if len(seen) != count:
            return ["late"]
        began, rows, now = self.sweep_by[2], [], self.now
        if self.first():
            self.strange = {name: at for name, at in self.strange.items() if name in seen}
            struck = []
            for name in seen - self.members.keys() - self.kept.keys():
                if self.gone.get(name, 0) < began:
                    first = min(now, self.strange.get(name, now))
                    if first <= now - STRIKE:
                        struck.append(name)
                    self.strange[name] = first
            chosen = [name for name in struck if name in self.told]
            assert len(chosen) == min(HANDED, len(struck))
            for name in chosen:
                self.put(name, Record("destroying", self.session, self.turn, now, now))
        rows = [[name, 0] for name in self.own(self.session) if self.members[name].turn == self.turn]
        for name, record in self.members.items():
            if name in seen or record.state not in EXISTING or record.created >= began:
                self.missing.pop(name, None)
                continue
            first = self.missing[name] = min(now, self.missing.get(name, now))
            if first <= now - STRIKE and record.session == self.session:
                rows.append([name, 1])
        self.listed = began
        return self.in_order(rows)

    def state(self):
        owners = {record.session for record in self.members.values()}
        counts = {}
        for record in self.members.values():
            counts[record.state] = counts.get(record.state, 0) + 1
        return {
            "m": {name: record.text() for name, record in self.members.items()}, "n": counts,
            "back": {name: str(known) for name, known in self.back.items()},
            "ins": {name: str(epoch) for name, epoch in self.instances.items()},
            "said": {session: ":".join(map(str, said)) for session, said in self.said.items()},
            "want": self.want, "turn": {session: str(turn) for session, turn in self.turns.items()},
            "lim": {**({"count": str(self.limit), "window": str(self.window)} if self.limit else {}), **({"until": str(self.till)} if self.till else {})},
            "ses": self.sessions, "listers": self.listers, "made": self.made, "s1": self.strange, "s2": self.missing, "gone": self.gone,
            "warm": {name: record.since for name, record in self.members.items() if record.is_stock()},
            **{f"of:{owner}": self.own(owner) for owner in owners},
            **{f"lost:{owner}": {name: str(at) for name, at in names.items()} for owner, names in self.lost.items() if names},
            "limits": {str(limit): till for limit, till in self.limits.items()}, "crowd": self.waits, "asked": self.asked, "asleep": self.asleep, "left": self.left,
            "inc": self.inc, "rec": self.rec and str(self.rec), "listed": self.listed and str(self.listed),
            "sweep": self.sweep_by and f"{self.sweep_by[0]} {self.sweep_by[1]} {self.sweep_by[2]}",
        }
