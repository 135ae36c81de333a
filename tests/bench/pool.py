"""The pool's own core in virtual time (pool_sim.c), against a clairvoyant oracle under the same limits, fixed pools, and Erlang's formula."""
import concurrent.futures
import json
import math
import statistics
import subprocess

import servers
from figures import number, table
from processes import NotMeasured

SEEDS = (1, 2, 3)
SHAPES = {
    "poisson-2": "Poisson, 2 a minute", "poisson-6": "Poisson, 6 a minute", "poisson-9": "Poisson, 9 a minute",
    "bursts": "6 to 14 within 3 s, every 5 minutes", "burst-20": "20 within 1 s, every 20 minutes",
    "burst-20-of-10": "the same, 10 may run at once", "diurnal": "a day in 4 hours, peak 15 a minute, five tenants",
    "herd": "40 within 0.3 s, every 30 minutes", "hog": "one tenant wants more than all, nine a little",
}
POLICIES = ("auto", "restore", "none", "oracle", "oracle-restore", "oracle-at-rest")
FIXED = range(1, 31)
POISSON = {"poisson-2": 2 / 60, "poisson-6": 6 / 60, "poisson-9": 9 / 60}
LATENCIES = ((1.5, 5), (0.8, 3))        # of a creation and a preparation in pool_sim.c: median and 99 %


def simulate(shape, policy):
    """The runs of all seeds."""
    def run(seed):
        done = subprocess.run([servers.BUILD / "bin/pool_sim", shape, policy, str(seed)], capture_output=True, text=True, timeout=120,
                              check=False)
        if done.returncode:
            raise NotMeasured(f"pool: pool_sim {shape} {policy} {seed}: exit {done.returncode}")
        return json.loads(done.stdout)
    runs = [run(seed) for seed in SEEDS]
    for each in runs:
        if each["max_alive"] > each["max"]:
            raise NotMeasured(f"pool: {shape} {policy}: {each['max_alive']} Sprites existed, {each['max']} may")
        if each["max_running"] > each["running_limit"]:
            raise NotMeasured(f"pool: {shape} {policy}: {each['max_running']} Sprites ran, {each['running_limit']} may")
    return runs


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
    for size in FIXED[:simulate(shape, "none")[0]["max"]]:
        runs = simulate(shape, f"fixed:{size}")
        if hits(runs, "hot") >= wanted - 0.0005:
            return {"size": size, "runs": runs}
    return None


def measure_shape(shape):
    results = {policy: simulate(shape, policy) for policy in POLICIES}
    results["fixed"] = fixed_as_good(shape, hits(results["auto"], "hot", "warm"))
    return results


def measure(bench):
    del bench
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return dict(zip(SHAPES, pool.map(measure_shape, SHAPES)))


def erlang_b(stock, offered):
    miss = 1.0
    for n in range(1, stock + 1):
        miss = offered * miss / (n + offered * miss)
    return miss


def supply_seconds():
    """The mean of a creation and its preparation, lognormal both."""
    return sum(median * math.exp((math.log(p99 / median) / 2.326) ** 2 / 2) for median, p99 in LATENCIES)


def predicted_hits(shape, runs):
    """Erlang's formula, for the stock that the controller wanted on average."""
    stock = round(statistics.mean(each["target"] for each in runs))
    return 1 - erlang_b(stock, POISSON[shape] * supply_seconds())


def regret(runs, oracle):
    return total(runs, "cost") / total(oracle, "cost") - 1


def row(name, runs, oracle):
    return [name, *(f"{100 * value:.2f}" for value in (hits(runs, "hot"), hits(runs, "hot", "warm"))),
            *(number(added(runs, percent)) for percent in ("p50", "p99", "p999")),
            f"{100 * total(runs, 'refused') / total(runs, 'claims'):.2f}", number(per_claim(runs, "hot_idle_s")),
            number(per_claim(runs, "running_idle_s")), f"{per_claim(runs, 'creates'):.2f}", f"{1000 * per_claim(runs, 'usd'):.2f}",
            f"{statistics.mean(each['jain'] for each in runs):.3f}", f"{regret(runs, oracle):.2f}"]


HEAD = ["", "hot %", "+ warm %", "p50 ms", "p99", "p99.9", "503 %", "hot idle s", "running idle s", "creates", "$ / 1000", "Jain", "regret"]


def rows_of(shape, results):
    rows = [[f"{SHAPES[shape]} ({int(total(results['auto'], 'claims'))} claims)"]]
    named = {"auto": "auto", "restore": "auto, restoring", "none": "no pool"}
    for policy, name in named.items():
        oracle = results["oracle-restore" if policy == "restore" else "oracle"]
        rows.append(row(name, results[policy], oracle))
    if results["fixed"]:
        rows.append(row(f"fixed {results['fixed']['size']}", results["fixed"]["runs"], results["oracle"]))
    rows.append(row("oracle", results["oracle"], results["oracle"]))
    rows.append(row("oracle, restoring", results["oracle-restore"], results["oracle-restore"]))
    rows.append(row("oracle at rest", results["oracle-at-rest"], results["oracle"]))
    return rows


def tier_rows(shape, results):
    rows = [[SHAPES[shape]]]
    for tier in ("hot", "warm", "cold"):
        runs = results["auto"]
        share = sum(each[tier]["n"] for each in runs) / total(runs, "claims")
        rows.append([tier, f"{100 * share:.2f}", *(number(added(runs, percent, tier)) for percent in ("p50", "p99", "p999"))])
    return rows


def bars(result):
    """(what, figure, reached) of each thing that the pool shall show."""
    for shape in POISSON:
        runs = result[shape]["auto"]
        measured, predicted = hits(runs, "hot", "warm"), predicted_hits(shape, runs)
        yield f"{shape}: hot or warm, at least 99.5 %", f"{100 * measured:.2f} %", measured >= 0.995
        yield (f"{shape}: within 0.5 points of Erlang's formula", f"{100 * (measured - predicted):+.2f} points", measured >= predicted - 0.005)
        fixed = result[shape]["fixed"]
        if not fixed:
            yield f"{shape}: 2.4 times less hot idling than a fixed pool (no bar)", "none hits as often", None
        else:
            times = per_claim(fixed["runs"], "hot_idle_s") / per_claim(runs, "hot_idle_s")
            yield f"{shape}: 2.4 times less hot idling than fixed {fixed['size']}", f"{times:.2f} times", times >= 2.4
            honest = per_claim(fixed["runs"], "running_idle_s") / per_claim(runs, "running_idle_s")
            yield f"{shape}: the same with all that runs idle (no bar)", f"{honest:.2f} times", None
    for shape in ("burst-20-of-10", "burst-20"):
        for oracle, name in (("oracle-at-rest", "of an oracle at rest"), ("oracle", "the oracle's")):
            times = added(result[shape]["auto"], "p99") / added(result[shape][oracle], "p99")
            yield f"{shape}: p99 within 1.5 times {name}", f"{times:.2f} times", times <= 1.5
    fixed = result["burst-20"]["fixed"]
    if fixed:
        times = per_claim(fixed["runs"], "running_idle_s") / per_claim(result["burst-20"]["auto"], "running_idle_s")
        yield f"burst-20: all idling of fixed {fixed['size']}, which is as fast as the oracle (no bar)", f"{times:.1f} times", None
    runs = result["diurnal"]["restore"]
    yield "diurnal, restoring: nobody refused", f"{total(runs, 'refused'):.0f}", total(runs, "refused") == 0
    over = (total(result["diurnal"]["auto"], "refused") - total(result["diurnal"]["oracle"], "refused")) / total(result["diurnal"]["auto"], "claims")
    yield "diurnal, destroying: refused beyond the oracle's (no bar)", f"{100 * over:.2f} points", None
    ran = [each for shape in result.values() for policy in POLICIES for each in shape[policy]]
    for figure, limit, what in (("max_alive", "max", "exist"), ("max_running", "running_limit", "run")):
        share = max(each[figure] / each[limit] for each in ran)
        yield f"all shapes: never more Sprites {what} than may", f"{100 * share:.0f} % at most", share <= 1
    mice = added(result["hog"]["auto"], "p99", "mice")
    yield "hog: p99 of the mice (no bar)", f"{number(mice)} ms; first come, first served: {number(added(result['hog']['oracle'], 'p99', 'mice'))} ms", None


def show(result):
    words = {True: "reached", False: "MISSED", None: ""}
    tables = [table(HEAD, [each for shape in SHAPES for each in rows_of(shape, result[shape])]),
              table(["added ms of auto, by tier", "% of claims", "p50", "p99", "p99.9"],
                    [each for shape in SHAPES for each in tier_rows(shape, result[shape])]),
              table(["bars", "", ""], [[what, figure, words[reached]] for what, figure, reached in bars(result)])]
    return ("\n\n".join(tables) + f"\n\nlatencies are assumed, not measured on the live service; {len(SEEDS)} seeds of 4 hours; seconds, creates and"
            "\nmoney are per claim; regret is cost over the oracle's less one, a second's wait taken as $0.0075, a refusal as 30 s")
