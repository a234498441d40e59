"""Prometheus as configured in compose.yaml."""

import json
import urllib.parse
import urllib.request

from testkit.outcome import equal, until

TARGETS = ["capture-tzsp:9108", "collector:9108", "host-a:9108", "host-b:9108"]


def scrapes_all(stack):
    """Prometheus scrapes all services, and loads and evaluates our rules."""
    stack.compose("up", "-d", "--no-build", "prometheus")
    address = stack.compose("port", "prometheus", "9090").strip()

    def get(path, **parameters):
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"http://{address}/api/v1/{path}?{query}", timeout=5) as response:
                return json.load(response)["data"]
        except OSError:
            return None

    def up():
        found = get("query", query="up == 1") or {"result": []}
        return sorted(series["metric"]["instance"] for series in found["result"])

    until(lambda: up() == TARGETS, lambda: f"up: {up()}", 60)

    def rules():
        groups = (get("rules") or {"groups": []})["groups"]
        return [rule for group in groups for rule in group["rules"]]

    until(lambda: rules() and all(rule["health"] == "ok" for rule in rules()), lambda: f"rules: {rules()}", 60)
    equal([rule["lastError"] for rule in rules() if rule.get("lastError")], [], "errors of rules")
