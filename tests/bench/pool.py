"""The pool's own core in virtual time (pool_sim), against a clairvoyant oracle under the same limits, fixed pools, and the pool of Erlang's
formula, all with the same claims. Seeds are fixed, so each figure is the same on every machine, and bars can be missed."""
import concurrent.futures
import json
import statistics
import subprocess

import servers
from figures import bar_table, missed_bars, number, table
from processes import NotMeasured

SEEDS = range(1, 4)
MORE_SEEDS = {"burst-20": range(1, 21), "burst-20-of-10": range(1, 21)}     # twelve bursts each
SHAPES = {
    "poisson-2": "Poisson, 2 a minute", "poisson-6": "Poisson, 6 a minute", "poisson-9": "Poisson, 9 a minute",
    "bursts": "6 to 14 within 3 s, every 5 minutes", "burst-20": "20 within 1 s, every 20 minutes",
    "burst-20-of-10": "the same, 10 may run at once", "diurnal": "a day in 4 hours, peak 15 a minute, five tenants",
    "herd": "40 within 0.3 s, every 30 minutes", "sessions": "agents, one a minute, each 1 to 30 commands in one session",
    "hog": "one tenant wants more than all, nine a little",
}
POISSON = ("poisson-2", "poisson-6", "poisson-9")
RETURN, PATIENT = "return:1", "return:3"    # refused callers come back when they were told to, so often
RETURNED = 0.9
POLICIES = {"auto": "auto", "restore": "auto, restoring", RETURN: "auto, callers return", PATIENT: "… thrice", "none": "no pool", "erlang": "Erlang's pool",
            "oracle": "oracle", "oracle-restore": "oracle, restoring", "oracle-at-rest": "oracle at rest"}
PEERS = {"restore": "oracle-restore"}   # whose regret is told by another oracle
FIXED = range(1, 31)


def simulator(*words):
    done = subprocess.run([servers.BUILD / "bin/pool_sim", *words], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise NotMeasured(f"pool_sim {' '.join(words)}: exit {done.returncode}")
    return json.loads(done.stdout)


def simulate(shape, policy, seeds=None, times=()):
    """The runs of all seeds; with `times`, those of pool_sim, instead of the assumed ones."""
    return [simulator(shape, policy, str(seed), *map(str, times)) for seed in seeds or MORE_SEEDS.get(shape, SEEDS)]


def trace(shape, seed):
    return simulator(shape, "trace", str(seed))


def total(runs, figure):
    return sum(each[figure] for each in runs)


def hits(runs, *tiers):
    return sum(each[tier]["n"] for each in runs for tier in tiers) / total(runs, "claims")


def per_claim(runs, figure):
    return total(runs, figure) / total(runs, "claims")


def added(runs, percent, whose="all"):
    return statistics.median(each[whose][percent] for each in runs)


def fixed_as_good(shape, wanted):
    """The smallest fixed hot pool, destroying after use, that hits as often as `wanted`; None if none does."""
    for size in FIXED[:simulate(shape, "none", SEEDS)[0]["max"]]:
        runs = simulate(shape, f"fixed:{size}", SEEDS)
        if hits(runs, "hot") >= wanted - 0.0005:
            return {"size": size, "runs": runs}
    return None


def measure_shape(shape):
    results = {policy: simulate(shape, policy) for policy in POLICIES}
    results["fixed"] = fixed_as_good(shape, hits(results["auto"], "hot", "warm"))
    results["fixed_hot"] = fixed_as_good(shape, hits(results["auto"], "hot"))
    return results


def measure(bench):
    del bench
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return dict(zip(SHAPES, pool.map(measure_shape, SHAPES)))


def regret(runs, other):
    return per_claim(runs, "cost") / per_claim(other, "cost") - 1


def returned(runs):
    """Of the refused callers that came back, how many were served at once or after a wait; None if nobody was refused."""
    back = sum(each["told_s"]["n"] for each in runs)
    return total(runs, "served_at_first_return") / back if back else None


def row(name, runs, oracle, erlang):
    return [name, *(f"{100 * value:.2f}" for value in (hits(runs, "hot"), hits(runs, "hot", "warm"))),
            *(number(added(runs, percent)) for percent in ("p50", "p99", "p999")),
            f"{100 * total(runs, 'refused') / total(runs, 'claims'):.2f}", number(per_claim(runs, "hot_idle_s")),
            number(per_claim(runs, "running_idle_s")), f"{per_claim(runs, 'creates'):.2f}", f"{1000 * per_claim(runs, 'usd'):.2f}",
            f"{statistics.mean(each['jain'] for each in runs):.3f}", f"{regret(runs, oracle):.2f}", f"{regret(runs, erlang):.2f}"]


HEAD = ["", "hot %", "+ warm %", "p50 ms", "p99", "p99.9", "503 %", "hot idle s", "running idle s", "creates", "$ / 1000", "Jain", "regret",
        "… to Erlang's"]


def rows_of(shape, results):
    rows = [[f"{SHAPES[shape]} ({int(total(results['auto'], 'claims'))} claims)"]]
    for policy, name in POLICIES.items():
        if policy in (RETURN, PATIENT) and returned(results[policy]) is None:
            continue
        rows.append(row(name, results[policy], results[PEERS.get(policy, "oracle")], results["erlang"]))
        if policy == "none" and results["fixed"]:
            rows.append(row(f"fixed {results['fixed']['size']}", results["fixed"]["runs"], results["oracle"], results["erlang"]))
    return rows


def tier_rows(shape, results):
    rows = [[SHAPES[shape]]]
    for tier in ("hot", "warm", "cold"):
        runs = results["auto"]
        share = sum(each[tier]["n"] for each in runs) / total(runs, "claims")
        rows.append([tier, f"{100 * share:.2f}", *(number(added(runs, percent, tier)) for percent in ("p50", "p99", "p999"))])
    return rows


def poisson_bars(shape, results):
    runs, erlang, fixed = results["auto"], results["erlang"], results["fixed"]
    measured, ideal = hits(runs, "hot", "warm"), hits(erlang, "hot", "warm")
    formula = 1 - statistics.mean(each["formula"] for each in erlang)
    yield f"{shape}: hot or warm, at least 99.5 %", f"{100 * measured:.2f} %", measured >= 0.995
    yield (f"{shape}: at most 0.5 points below Erlang's pool of {erlang[0]['stock']}, same claims",
           f"{100 * (measured - ideal):+.2f} points; the formula says {100 * formula:.2f} %, it had {100 * ideal:.2f} %",
           measured >= ideal - 0.005)
    yield from idle_bars(shape, runs, fixed, "that is hot as often as this one hot or warm", True)
    yield from idle_bars(shape, runs, results["fixed_hot"], "that is hot as often as this one hot", False)


def idle_bars(shape, runs, fixed, what, judged):
    """What counts as a hit of this pool, whose wakes a fixed pool does not know, may be read in two ways. The first is judged."""
    if not fixed:
        yield f"{shape}: 2.4 times less hot idling than a fixed pool {what}", "there is none", None
        return
    times, running = (per_claim(fixed["runs"], idle) / per_claim(runs, idle) for idle in ("hot_idle_s", "running_idle_s"))
    yield (f"{shape}: 2.4 times less hot idling than fixed {fixed['size']}, {what}", f"{times:.2f} times{'' if judged or times >= 2.4 else ', too few'}",
           times >= 2.4 if judged else None)
    yield f"{shape}: … with all that runs idle", f"{running:.2f} times", None


def burst_bars(result):
    """Twenty that may all run are woken at the first claim at the earliest, unless they ran all the time: only an oracle at rest can be met."""
    for shape in ("burst-20", "burst-20-of-10"):
        for oracle, name in (("oracle-at-rest", "of an oracle at rest"), ("oracle", "of one that knows when it comes")):
            times = added(result[shape]["auto"], "p99") / added(result[shape][oracle], "p99")
            judged = shape == "burst-20-of-10" or oracle == "oracle-at-rest"
            yield f"{shape}: p99 within 1.5 times that {name}", f"{times:.2f} times", times <= 1.5 if judged else None
    fixed = result["burst-20"]["fixed"]
    if fixed:
        times = per_claim(fixed["runs"], "running_idle_s") / per_claim(result["burst-20"]["auto"], "running_idle_s")
        yield f"burst-20: all idling of fixed {fixed['size']}, which is as fast as the oracle", f"{times:.1f} times", None


def diurnal_bars(results):
    refused = total(results["restore"], "refused")
    yield "diurnal, restoring: nobody refused", f"{refused:.0f}", refused == 0
    back = returned(results[RETURN])
    yield (f"diurnal, destroying: of those who come back when told to, {100 * RETURNED:.0f} % are served then", f"{100 * back:.1f} %",
           back >= RETURNED)
    thrice = results[PATIENT]
    yield "diurnal, destroying: never served though they came back thrice", f"{total(thrice, 'refused'):.0f} of {total(thrice, 'claims'):.0f}", None
    over = (total(results["auto"], "refused") - total(results["oracle"], "refused")) / total(results["auto"], "claims")
    yield "diurnal, destroying: refused beyond the oracle's", f"{100 * over:.2f} points", None


def limit_bars(result):
    """Erlang's pool knows none."""
    ran = [each for shape in result.values() for policy in POLICIES if policy != "erlang" for each in shape[policy]]
    for figure, limit, what in (("max_alive", "max", "exist"), ("max_running", "running_limit", "run")):
        share = max(each[figure] / each[limit] for each in ran)
        yield f"all shapes: never more Sprites {what} than may", f"{100 * share:.0f} % at most", share <= 1


def bars(result):
    """(what, figure, reached) of each thing that the pool shall show; None: nothing is demanded."""
    for shape in POISSON:
        yield from poisson_bars(shape, result[shape])
    yield from burst_bars(result)
    yield from diurnal_bars(result["diurnal"])
    yield from limit_bars(result)
    mice = added(result["hog"]["auto"], "p99", "mice")
    yield "hog: p99 of the mice", f"{number(mice)} ms; first come, first served: {number(added(result['hog']['oracle'], 'p99', 'mice'))} ms", None


def missed(result):
    return missed_bars(bars(result))


def show(result):
    tables = [table(HEAD, [each for shape in SHAPES for each in rows_of(shape, result[shape])]),
              table(["added ms of auto, by tier", "% of claims", "p50", "p99", "p99.9"],
                    [each for shape in SHAPES for each in tier_rows(shape, result[shape])]),
              bar_table(bars(result))]
    return ("\n\n".join(tables) + f"\n\nlatencies are assumed, not measured on the live service; {len(SEEDS)} seeds of 4 hours (bursts of 20: "
            f"{len(MORE_SEEDS['burst-20'])}); seconds, creates and\nmoney are per claim; regret is cost over the oracle's, or over that of Erlang's "
            "pool, less one: a second's wait\ncosts $0.0075, a refusal as much as 30 s; p50 to p99.9 of those who come back are of the last time")
