"""Metrics in Prometheus' text format, read strictly."""

import re

from .outcome import Failed

SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)",?')


class Metrics:
    """One exposition."""

    def __init__(self, text):
        self.text = text
        self.samples = []
        self.families = {}
        seen = set()
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                self.families[name] = kind
            elif line and not line.startswith("#"):
                match = SAMPLE.fullmatch(line)
                if match is None:
                    raise Failed(f"no sample of a metric: {line!r}")
                name, labels, value = match.groups()
                if (name, labels) in seen:
                    raise Failed(f"a sample stands there twice: {line}")
                seen.add((name, labels))
                self.samples.append((name, dict(LABEL.findall(labels or "")), float(value)))

    def values(self, name, **labels):
        """The values of all series of this name that have these labels."""
        return [
            value
            for sample, had, value in self.samples
            if sample == name and all(had.get(key) == wanted for key, wanted in labels.items())
        ]

    def sum(self, name, **labels):
        """All series of this name that have these labels, added up; 0 where there is none."""
        return int(sum(self.values(name, **labels)))

    def one(self, name, **labels):
        """The value of the only series of this name that has these labels."""
        found = self.values(name, **labels)
        if len(found) != 1:
            raise Failed(f"{len(found)} series {name}{labels or ''} where there should be one")
        return found[0]
