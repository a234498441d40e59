"""A strict parser for Prometheus' text format."""

import re

from .outcome import Failed

SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)",?')


class Metrics:
    """One exposition. A series that occurs twice is an error."""

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
                    raise Failed(f"not a valid sample: {line!r}")
                name, labels, value = match.groups()
                if (name, labels) in seen:
                    raise Failed(f"duplicate sample: {line}")
                seen.add((name, labels))
                self.samples.append((name, dict(LABEL.findall(labels or "")), float(value)))

    def values(self, name, **labels):
        """The values of all series with this name and these labels."""
        return [
            value
            for sample, present, value in self.samples
            if sample == name and all(present.get(key) == wanted for key, wanted in labels.items())
        ]

    def sum(self, name, **labels):
        """The sum of all series with this name and these labels; 0 if there are none."""
        return int(sum(self.values(name, **labels)))

    def one(self, name, **labels):
        """The value of the only series with this name and these labels."""
        found = self.values(name, **labels)
        if len(found) != 1:
            raise Failed(f"expected one series {name}{labels or ''}, found {len(found)}")
        return found[0]
