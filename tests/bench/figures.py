"""Medians, percentiles, ratios and tables of them."""
import collections
import math
import random
import statistics

RESAMPLES = 500


def percentile(values, percent):
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1]


def counted_percentile(counts, percent):
    """Nearest rank, of {value: how often}."""
    left = max(math.ceil(sum(counts.values()) * percent / 100), 1)
    for value in sorted(counts):
        left -= counts[value]
        if left <= 0:
            return value
    raise ValueError("nothing was counted")


def pooled(rounds):
    """The latencies of all of them as one {µs: requests}."""
    together = collections.Counter()
    for each in rounds:
        together.update(each["latencies"])
    return together


def pooled_ratios(ours, theirs, percents):
    """{percent: (ratio, low, high)} of the pooled latencies; the interval is that of 95 % of the ratios which the rounds give when they are
    drawn anew, with replacement (bootstrap). A round's requests wait for each other, so only whole rounds are independent."""
    draw, last = random.Random(1), len(ours) - 1
    found = {percent: [] for percent in percents}
    for _ in range(RESAMPLES):
        chosen = [draw.randint(0, last) for _ in ours]
        one, other = (pooled(rounds[index] for index in chosen) for rounds in (ours, theirs))
        for percent in percents:
            found[percent].append(counted_percentile(one, percent) / counted_percentile(other, percent))
    one, other = pooled(ours), pooled(theirs)
    return {percent: (counted_percentile(one, percent) / counted_percentile(other, percent), percentile(each, 2.5), percentile(each, 97.5))
            for percent, each in found.items()}


def percentile_difference(ones, others, percent):
    """(difference, low, high) of the percentiles of two series that were measured in turns; the interval as above, of turns drawn anew."""
    draw, last = random.Random(1), len(ones) - 1

    def difference(one, other):
        return percentile(one, percent) - percentile(other, percent)
    found = []
    for _ in range(RESAMPLES):
        chosen = [draw.randint(0, last) for _ in ones]
        found.append(difference([ones[index] for index in chosen], [others[index] for index in chosen]))
    return difference(ones, others), percentile(found, 2.5), percentile(found, 97.5)


def median_of(rounds, figure):
    return statistics.median(each[figure] for each in rounds)


def ratios(ours, theirs, figure):
    """Of each round."""
    return [a[figure] / b[figure] for a, b in zip(ours, theirs) if b[figure]]


def spread(found):
    """Median and quartiles; of few values the least and the most."""
    low, _, high = statistics.quantiles(found) if len(found) >= 5 else (min(found), None, max(found))
    return statistics.median(found), low, high


def ratio(ours, theirs, figure):
    """The spread of the ratios of each round, as text."""
    found = ratios(ours, theirs, figure)
    return with_range(spread(found)) if found else "–"


def with_range(figures):
    """Of (value, low, high)."""
    return "{:.2f} [{:.2f}–{:.2f}]".format(*figures)


def number(value):
    """Three digits that mean something."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(head, rows):
    """Text with the first column left and the others right; a row of one cell is a heading."""
    full = [row for row in [head, *rows] if len(row) > 1]
    widths = [max(len(row[i]) for row in full) for i in range(len(head))]
    lines = []
    for row in [head, *rows]:
        if len(row) == 1:
            lines += ["", row[0]]
        else:
            lines.append("  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]).rstrip())
    return "\n".join(lines)


def bar_table(bars):
    """Of (what, figure, reached); reached is None where nothing is demanded."""
    words = {True: "OK", False: "MISSED", None: "no bar"}
    return table(["bars", "", ""], [[what, figure, words[reached]] for what, figure, reached in bars])


def missed_bars(bars):
    return [f"{what}: {figure}" for what, figure, reached in bars if reached is False]
