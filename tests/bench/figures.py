"""Medians, percentiles, ratios and tables of them."""
import math
import statistics


def percentile(values, percent):
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1]


def median_of(rounds, figure):
    return statistics.median(each[figure] for each in rounds)


def ratios(ours, theirs, figure):
    """Of each round."""
    return [a[figure] / b[figure] for a, b in zip(ours, theirs) if b[figure]]


def ratio(ours, theirs, figure):
    """Median [quartiles] of the ratios of each round, as text; of few rounds the least and the most."""
    found = ratios(ours, theirs, figure)
    if not found:
        return "–"
    low, _, high = statistics.quantiles(found) if len(found) >= 5 else (min(found), None, max(found))
    return f"{statistics.median(found):.2f} [{low:.2f}–{high:.2f}]"


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
