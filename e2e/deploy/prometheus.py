#!/usr/bin/env python3
"""Dashboards and rules, by a real Prometheus that has scraped real programs under traffic: every query has an answer.

python3 e2e/deploy/prometheus.py
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "e2e"))
sys.dont_write_bytecode = True

from e2e.deploy.dashboards import DASHBOARDS, Dashboard, asked  # noqa: E402
from e2e.deploy.report import Report  # noqa: E402
from testkit import http, isolation, pcktr  # noqa: E402
from testkit.outcome import Failed, Skipped, check, equal, until  # noqa: E402
from testkit.scene import Scene  # noqa: E402

RULES = ROOT / "deploy/prometheus/rules"
RULE_TESTS = ROOT / "deploy/prometheus/tests"
DEMO = ROOT / "deploy/compose"

CAPTURES, COLLECTORS = "packeteur-capture", "packeteur-collect"

# For everything that is asked for to come about: rates need a few scrapes, one a second.
PATIENCE = 90

CONFIGURATION = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}/*.yml"]
scrape_configs:
  - job_name: {captures}
    static_configs: [{{targets: [{capture_targets}]}}]
  - job_name: {collectors}
    static_configs: [{{targets: ["127.0.0.1:{collector}"]}}]
"""


def promtool(*arguments):
    if shutil.which("promtool") is None:
        raise Skipped("promtool is not installed (Debian: prometheus)")
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60)
    check(done.returncode == 0, done.stdout + done.stderr)


class Monitoring:
    """A network of its own, in which everything runs: hosts' traffic on `lo`, a router, two captures, an exporter, a collector,
    and Prometheus."""

    def __init__(self, directory):
        if shutil.which("prometheus") is None:
            raise Skipped("prometheus is not installed")
        if not os.access(pcktr.PCKTR, os.X_OK):
            raise Skipped(f"{pcktr.PCKTR} is not built")
        isolation.isolate()
        self.scene = scene = Scene(directory)
        endpoint = scene.endpoint()
        common = {"observe": "all"}
        self.collector = scene.collect("collector", collect_endpoint=endpoint, output="/dev/null", **common)
        tzsp = scene.home.free_port()
        self.captures = [
            scene.capture("host", device="lo", filter="port 8080", relay_endpoint=endpoint, **common),
            scene.capture("router", tzsp_port=tzsp, relay_endpoint=endpoint, **common),
            scene.observe("exporter", device="lo", filter="port 8080", **common),
        ]
        scene.start("traffic", sys.executable, str(DEMO / "traffic.py"), "127.0.0.1")
        scene.start("sniffer", sys.executable, str(DEMO / "router.py"), "127.0.0.1", str(tzsp))
        self.port = scene.home.free_port()
        targets = ", ".join(f'"127.0.0.1:{capture.metrics_port()}"' for capture in self.captures)
        configuration = CONFIGURATION.format(
            rules=RULES,
            captures=CAPTURES,
            collectors=COLLECTORS,
            capture_targets=targets,
            collector=self.collector.metrics_port(),
        )
        self.prometheus = scene.start(
            "prometheus",
            "prometheus",
            f"--config.file={scene.write('prometheus.yml', configuration.encode())}",
            f"--storage.tsdb.path={scene.path('tsdb')}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        )
        self.prometheus.wait_for_log("Server is ready to receive web requests", 60)

    def api(self, path, **parameters):
        answer = http.get(self.scene.home, self.port, f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        answer = json.loads(answer.text)
        if answer["status"] != "success":
            raise Failed(f"{answer['error']}: {parameters}")
        return answer["data"]

    def has_data(self, expression):
        """Whether there is a number for an answer."""
        return any(series["value"][1] != "NaN" for series in self.api("query", query=expression)["result"])

    def all_are_scraped(self):
        def health():
            targets = self.api("targets")["activeTargets"]
            return {target["scrapeUrl"]: target["lastError"] or target["health"] for target in targets}

        until(lambda: set(health().values()) == {"up"} and len(health()) == 4, lambda: f"targets: {health()}", 30)

    def answers(self, queries):
        """Waits until each of them has an answer."""
        left = list(queries)
        check(left, "no queries")

        def answered():
            left[:] = [query for query in left if not self.has_data(query.expression)]
            return not left

        def told():
            return f"{len(left)} queries without data:\n" + "\n".join(
                f"{query.place}: {query.expression}" for query in left
            )

        until(answered, told, PATIENCE)

    def rules_work(self):
        """What is recorded is there, and what is alerted of is looked at; nothing of it fails."""

        def rules():
            return [rule for group in self.api("rules")["groups"] for rule in group["rules"]]

        def left():
            found = []
            for rule in rules():
                expression = rule["name"] if rule["type"] == "recording" else asked(rule["query"])
                if rule["health"] != "ok" or not self.has_data(expression):
                    found.append(f"{rule['name']}: {rule['health']} {rule.get('lastError', '')}: {expression}")
            return found

        until(lambda: rules() and not left(), lambda: "rules without data:\n" + "\n".join(left()), PATIENCE)

    def nothing_fires(self):
        """Nor is about to, among programs that are well."""
        equal([alert["labels"] for alert in self.api("alerts")["alerts"]], [], "alerts")

    def every_sample_counts(self):
        """Prometheus has left out none: not for standing there twice, nor for its time."""
        text = http.get(self.scene.home, self.port, "/metrics").text
        left_out = [
            line
            for line in text.splitlines()
            if line.startswith("prometheus_target_scrapes_sample_") and not line.endswith(" 0")
        ]
        equal(left_out, [], "samples left out")


def main():
    report = Report()
    report.run("prometheus: promtool check rules", promtool, "check", "rules", *sorted(RULES.glob("*.yml")))
    report.run("prometheus: promtool test rules", promtool, "test", "rules", *sorted(RULE_TESTS.glob("*.yml")))
    dashboards = [Dashboard(path) for path in DASHBOARDS]
    for dashboard in dashboards:
        report.run(f"dashboard {dashboard.path.stem}: is well formed", dashboard.is_well_formed)
    directory = tempfile.mkdtemp(prefix="pcktr-e2e-prometheus-")
    os.chmod(directory, 0o755)
    monitoring = None
    try:
        monitoring = Monitoring(directory)
        report.run("prometheus: scrapes all programs", monitoring.all_are_scraped)
        for dashboard in dashboards:
            chosen = dashboard.variables["job"].get("includeAll") is not True
            for job in [CAPTURES, COLLECTORS] if chosen else [None]:
                name = f"dashboard {dashboard.path.stem}: every query has an answer" + (f" from {job}" if job else "")
                values = {"job": job} if job else {}
                report.run(name, lambda: monitoring.answers(dashboard.queries(values)))
        report.run("prometheus: every rule has an answer", monitoring.rules_work)
        report.run("prometheus: no alert among programs that are well", monitoring.nothing_fires)
        report.run("prometheus: takes every sample", monitoring.every_sample_counts)
    except Skipped as reason:
        report.skip("prometheus: dashboards and rules", reason)
    finally:
        if monitoring is not None:
            monitoring.scene.clear()
            if report.failed:
                print(monitoring.scene.logs())
        shutil.rmtree(directory, ignore_errors=True)
    report.close()


main()
