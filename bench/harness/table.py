"""Figures: many of each, one in the table."""

import statistics


class Table:
    """A Markdown table."""

    def __init__(self, *columns):
        self.columns = columns
        self.rows = []

    def add(self, *cells):
        self.rows.append([str(cell) for cell in cells])

    def __str__(self):
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def median(values):
    return statistics.median(values)


def quantile(values, share):
    """The smallest value that so large a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def in_turn(rounds, contestants):
    """Runs each contestant in each round, A B C A B C …, so that a slow moment of the machine meets all of them.
    Returns each one's results: `{name: [result, ...]}`."""
    results = {name: [] for name, _ in contestants}
    for _ in range(rounds):
        for name, run in contestants:
            results[name].append(run())
    return results


def ratio(ours, theirs):
    """How many times `theirs` ours is, round by round; the median, for the machine changes from round to round."""
    return f"{median([a / b for a, b in zip(ours, theirs) if b]):.2f}"


def figure(values, digits=2):
    """The median, with the range where there is one."""
    low, middle, high = min(values), median(values), max(values)
    if len(values) < 2 or f"{low:.{digits}f}" == f"{high:.{digits}f}":
        return f"{middle:.{digits}f}"
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def mib(size):
    return f"{size / (1 << 20):.0f} MiB"
