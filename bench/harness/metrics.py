"""Metrics in Prometheus' text format."""

import re

SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")


class Metrics:
    """One exposition."""

    def __init__(self, text):
        self.samples = []
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, labels, value = SAMPLE.fullmatch(line).groups()
                self.samples.append((name, labels or "", float(value)))

    def sum(self, name):
        """All series of this name, added up; 0 where there is none."""
        return int(sum(value for sample, _, value in self.samples if sample == name))

    def count(self, name):
        """How many series have this name."""
        return sum(1 for sample, _, _ in self.samples if sample == name)
