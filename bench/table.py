"""Tables of figures, and the statistics in them."""

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
    """The value at this quantile, for example 0.99."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def in_turn(rounds, contestants):
    """Runs the contestants in turn, A B C A B C …, so that a slow phase of the machine affects all of them. Returns the
    results of each: `{name: [result, ...]}`."""
    results = {name: [] for name, _ in contestants}
    for _ in range(rounds):
        for name, run in contestants:
            results[name].append(run())
    return results


def ratio(ours, theirs):
    """The median of ours divided by theirs, round by round: the machine's speed varies between rounds."""
    return f"{median([a / b for a, b in zip(ours, theirs) if b]):.2f}"


def figure(values, digits=2):
    """The median, with the range if there is one."""
    low, middle, high = min(values), median(values), max(values)
    if len(values) < 2 or f"{low:.{digits}f}" == f"{high:.{digits}f}":
        return f"{middle:.{digits}f}"
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def mib(size):
    return f"{size / (1 << 20):.0f} MiB"
