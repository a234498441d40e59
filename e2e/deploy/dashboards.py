"""What stands in our dashboards and rules: their queries, and what is wrong with their form."""

import json
import re
from pathlib import Path
from typing import NamedTuple

from testkit.outcome import Failed, check

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))

VARIABLE = re.compile(r"\$\{(\w+)(?::\w+)?\}|\$(\w+)")
LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")

# What Grafana sets itself.
BUILT_IN = {"__rate_interval": "15s", "__range": "1m"}

# A comparison that filters. Asked with `bool`, it answers 0 or 1 for each series that it would look at.
COMPARISON = re.compile(r" (==|!=|>=|<=|>|<) ")


class Query(NamedTuple):
    """A query, and where it stands."""

    place: str
    expression: str


class Dashboard:
    """A dashboard."""

    def __init__(self, path):
        self.path = path
        self.json = json.loads(path.read_text())
        self.panels = [panel for panel in self.json["panels"] if panel["type"] != "row"]
        self.variables = {variable["name"]: variable for variable in self.json["templating"]["list"]}

    def queries(self, values):
        """Every query of every panel and variable, with these values for those variables of which one is chosen."""
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
                raise Failed(f"{self.path.stem}: ${name} is no variable: {expression}")
            # Grafana's answer to `All`: what stands there for it, or all that there is.
            options = [option["value"] for option in variable.get("options", []) if option["value"] != "$__all"]
            return variable.get("allValue") or "|".join(options)

        return VARIABLE.sub(value, expression)

    def is_well_formed(self):
        """Panels have a place, a number and a name of their own, ask something, and ask the chosen data source."""
        taken, numbers = set(), set()
        for panel in self.json["panels"]:
            where = f"panel `{panel['title']}`"
            check(panel["id"] not in numbers, f"{where}: its number is another's")
            numbers.add(panel["id"])
            grid = panel["gridPos"]
            cells = {
                (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
            }
            check(not cells & taken, f"{where}: lies upon another")
            check(max(x for x, _ in cells) < 24, f"{where}: is not in the grid of 24")
            taken |= cells
        for panel in self.panels:
            where = f"panel `{panel['title']}`"
            check(panel["targets"], f"{where}: asks nothing")
            for target in panel["targets"]:
                check(target["datasource"]["uid"] == "${datasource}", f"{where}: has a data source of its own")
        check(all(key in self.json for key in ("uid", "title", "description")), "no uid, title or description")


def asked(expression):
    """An alert's expression so that it answers whether or not anything is wrong."""
    return COMPARISON.sub(r" \1 bool ", expression)
