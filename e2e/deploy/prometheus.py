"""Dashboards and rules: every query has a result in a Prometheus that scrapes the program under traffic. Run as
`python3 -m e2e.deploy.prometheus`."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.parse

from e2e.deploy.dashboards import DASHBOARDS, Dashboard, without_filters
from testkit import http, isolation
from testkit.build import ROOT, need_pcktr
from testkit.outcome import Failed, Skipped, check, equal, until
from testkit.report import Report
from testkit.testbed import Testbed

RULES = ROOT / "deploy/prometheus/rules"
RULE_TESTS = ROOT / "deploy/prometheus/tests"
DEMO = ROOT / "deploy/compose"

CAPTURES, COLLECTORS = "packeteur-capture", "packeteur-collect"

# Seconds until every query has a result: rates need a few scrapes, one per second.
TIMEOUT = 90

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
    """Runs everything in a network of its own: traffic on `lo`, a TZSP router, two captures, an exporter, a collector,
    and Prometheus."""

    def __init__(self, directory):
        if shutil.which("prometheus") is None:
            raise Skipped("prometheus is not installed")
        need_pcktr()
        isolation.isolate()
        self.testbed = testbed = Testbed(directory)
        endpoint = testbed.endpoint()
        common = {"observe": "all"}
        self.collector = testbed.collect("collector", collect_endpoint=endpoint, output="/dev/null", **common)
        tzsp = testbed.home.free_port()
        self.captures = [
            testbed.capture("host", device="lo", filter="port 8080", relay_endpoint=endpoint, **common),
            testbed.capture("router", tzsp_port=tzsp, relay_endpoint=endpoint, **common),
            testbed.observe("exporter", device="lo", filter="port 8080", **common),
        ]
        testbed.start("traffic", sys.executable, str(DEMO / "traffic.py"), "127.0.0.1")
        testbed.start("sniffer", sys.executable, str(DEMO / "router.py"), "127.0.0.1", str(tzsp))
        self.port = testbed.home.free_port()
        targets = ", ".join(f'"127.0.0.1:{capture.metrics_port()}"' for capture in self.captures)
        configuration = CONFIGURATION.format(
            rules=RULES,
            captures=CAPTURES,
            collectors=COLLECTORS,
            capture_targets=targets,
            collector=self.collector.metrics_port(),
        )
        self.prometheus = testbed.start(
            "prometheus",
            "prometheus",
            f"--config.file={testbed.write('prometheus.yml', configuration.encode())}",
            f"--storage.tsdb.path={testbed.path('tsdb')}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        )
        self.prometheus.wait_for_log("Server is ready to receive web requests", 60)

    def api(self, path, **parameters):
        answer = http.get(self.testbed.home, self.port, f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        answer = json.loads(answer.text)
        if answer["status"] != "success":
            raise Failed(f"{answer['error']}: {parameters}")
        return answer["data"]

    def has_data(self, expression):
        """Whether the result has a number."""
        return any(series["value"][1] != "NaN" for series in self.api("query", query=expression)["result"])

    def scrapes_all(self):
        def health():
            targets = self.api("targets")["activeTargets"]
            return {target["scrapeUrl"]: target["lastError"] or target["health"] for target in targets}

        until(lambda: set(health().values()) == {"up"} and len(health()) == 4, lambda: f"targets: {health()}", 30)

    def has_results(self, queries):
        """Waits until each query has a result."""
        left = list(queries)
        check(left, "no queries")

        def all_found():
            left[:] = [query for query in left if not self.has_data(query.expression)]
            return not left

        def report():
            return f"{len(left)} queries without a result:\n" + "\n".join(
                f"{query.place}: {query.expression}" for query in left
            )

        until(all_found, report, TIMEOUT)

    def rules_have_results(self):
        """Recording rules have results, alerting rules evaluate series, and none fails."""

        def rules():
            return [rule for group in self.api("rules")["groups"] for rule in group["rules"]]

        def left():
            found = []
            for rule in rules():
                expression = rule["name"] if rule["type"] == "recording" else without_filters(rule["query"])
                if rule["health"] != "ok" or not self.has_data(expression):
                    found.append(f"{rule['name']}: {rule['health']} {rule.get('lastError', '')}: {expression}")
            return found

        until(lambda: rules() and not left(), lambda: "rules without a result:\n" + "\n".join(left()), TIMEOUT)

    def nothing_fires(self):
        """No alert fires or is pending."""
        equal([alert["labels"] for alert in self.api("alerts")["alerts"]], [], "alerts")

    def no_sample_is_rejected(self):
        """Prometheus rejects no sample as a duplicate or for its timestamp."""
        text = http.get(self.testbed.home, self.port, "/metrics").text
        rejected = [
            line
            for line in text.splitlines()
            if line.startswith("prometheus_target_scrapes_sample_") and not line.endswith(" 0")
        ]
        equal(rejected, [], "rejected samples")


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
        report.run("prometheus: scrapes all programs", monitoring.scrapes_all)
        for dashboard in dashboards:
            single = dashboard.variables["job"].get("includeAll") is not True
            for job in [CAPTURES, COLLECTORS] if single else [None]:
                name = f"dashboard {dashboard.path.stem}: every query has a result" + (f" from {job}" if job else "")
                values = {"job": job} if job else {}
                report.run(name, lambda: monitoring.has_results(dashboard.queries(values)))
        report.run("prometheus: every rule has a result", monitoring.rules_have_results)
        report.run("prometheus: no alert fires", monitoring.nothing_fires)
        report.run("prometheus: rejects no sample", monitoring.no_sample_is_rejected)
    except Skipped as reason:
        report.skipped("prometheus: dashboards and rules", reason)
    finally:
        if monitoring is not None:
            monitoring.testbed.close()
            if report.counts["failed"]:
                print(monitoring.testbed.logs())
        shutil.rmtree(directory, ignore_errors=True)
    return report.close()


if __name__ == "__main__":
    sys.exit(main())
