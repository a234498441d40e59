"""Reads our Grafana dashboards: their queries, and whether they are well formed."""

import json
import re
from typing import NamedTuple

from testkit.build import ROOT
from testkit.outcome import Failed, check

DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))

VARIABLE = re.compile(r"\$\{(\w+)(?::\w+)?\}|\$(\w+)")
LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")

# Variables that Grafana sets.
BUILT_IN = {"__rate_interval": "15s", "__range": "1m"}

# A comparison filters series. With `bool` it returns 0 or 1 for each of them instead.
COMPARISON = re.compile(r" (==|!=|>=|<=|>|<) ")


class Query(NamedTuple):
    """A query, and where it was found."""

    place: str
    expression: str


class Dashboard:
    """A dashboard file."""

    def __init__(self, path):
        self.path = path
        self.json = json.loads(path.read_text())
        self.panels = [panel for panel in self.json["panels"] if panel["type"] != "row"]
        self.variables = {variable["name"]: variable for variable in self.json["templating"]["list"]}

    def queries(self, values):
        """All queries of panels and variables. `values` are the values of the variables with a single choice."""
        for variable in self.variables.values():
            if variable["type"] == "query":
                series, label = LABEL_VALUES.fullmatch(variable["query"]["query"]).groups()
                expression = f'{series} and {series}{{{label}!=""}}' if "{" not in series else series
                yield Query(f"{self.path.stem}: variable {variable['name']}", self.replaced(expression, values))
        for panel in self.panels:
            for target in panel["targets"]:
                place = f"{self.path.stem}: panel `{panel['title']}`, query {target['refId']}"
                yield Query(place, self.replaced(target["expr"], values))

    def replaced(self, expression, values):
        def value(match):
            name = match[1] or match[2]
            if name in BUILT_IN:
                return BUILT_IN[name]
            if name in values:
                return values[name]
            variable = self.variables.get(name)
            if variable is None or not variable.get("includeAll"):
                raise Failed(f"{self.path.stem}: unknown variable ${name}: {expression}")
            # Grafana's value for `All`: the one of the variable, or all options.
            options = [option["value"] for option in variable.get("options", []) if option["value"] != "$__all"]
            return variable.get("allValue") or "|".join(options)

        return VARIABLE.sub(value, expression)

    def is_well_formed(self):
        """Panels do not overlap, have unique ids, and query the selected data source."""
        taken, numbers = set(), set()
        for panel in self.json["panels"]:
            where = f"panel `{panel['title']}`"
            check(panel["id"] not in numbers, f"{where}: duplicate id")
            numbers.add(panel["id"])
            grid = panel["gridPos"]
            cells = {
                (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
            }
            check(not cells & taken, f"{where}: overlaps another")
            check(max(x for x, _ in cells) < 24, f"{where}: exceeds the grid of 24 columns")
            taken |= cells
        for panel in self.panels:
            where = f"panel `{panel['title']}`"
            check(panel["targets"], f"{where}: no queries")
            for target in panel["targets"]:
                check(target["datasource"]["uid"] == "${datasource}", f"{where}: fixed data source")
        check(all(key in self.json for key in ("uid", "title", "description")), "no uid, title or description")


def without_filters(expression):
    """An alert's expression that returns a value whether or not the alert fires."""
    return COMPARISON.sub(r" \1 bool ", expression)
