"""Tests that need Docker: the image, the systemd units, and compose.yaml with each installed version of compose.

    python3 -m e2e.compose

They start a Docker engine if none is running, and make a base image if no registry is reachable.
"""

import subprocess
import sys

from e2e.compose import demo, image_tests, images, keys, prometheus, units
from e2e.compose.engine import Engine
from e2e.compose.relay import Relay
from e2e.compose.stack import DEMO_FILES, TEST_FILES, Stack
from testkit.build import ROOT
from testkit.outcome import Skipped, check, equal
from testkit.report import Report

STEPS = [
    ("starts, and is healthy", Relay.starts),
    ("relays packets of hosts and router, complete and in order", Relay.relays_in_order),
    ("prints them with tcpdump", Relay.prints),
    ("measures what was sent", Relay.measures),
    ("without keys, packets can be read on the way", Relay.sends_in_the_clear),
    ("loses nothing when a capture is disconnected for a while", Relay.buffers_while_disconnected),
    ("continues after the collector was killed", Relay.restarts_the_collector),
    ("continues after a capture was killed", Relay.restarts_a_capture),
]


def configurations(stack):
    """compose accepts the files, and names a missing variable."""
    stack.compose("config", "-q")
    capture = ["-f", str(ROOT / "deploy/compose/capture.yaml"), "config", "-q"]
    environment = {name: value for name, value in stack.environment.items() if name != "RELAY_ENDPOINT"}
    done = subprocess.run([*stack.command, *capture], env=environment, capture_output=True, text=True, timeout=60)
    check(done.returncode != 0, "RELAY_ENDPOINT is not required")
    check("set RELAY_ENDPOINT, for example RELAY_ENDPOINT=tcp://" in done.stderr, done.stderr)
    environment["RELAY_ENDPOINT"] = "tcp://collector.example.org:7386"
    done = subprocess.run([*stack.command, *capture], env=environment, capture_output=True, text=True, timeout=60)
    equal((done.returncode, done.stderr), (0, ""), "exit code and standard error")


def run(report, version, command):
    """Runs the tests with one version of compose. The first failure ends them: each depends on the ones before."""
    with Stack(command, DEMO_FILES) as stack:
        report.run(f"compose {version}: accepts the files, and names a missing variable", configurations, stack)
        report.run(f"compose {version}: works unchanged", demo.works_unchanged, stack)
    with Stack(command, TEST_FILES) as stack:
        relay = Relay(stack)
        passed = all(report.run(f"compose {version}: {name}", step, relay) for name, step in STEPS)
        if not passed:
            for service in ("collector", "capture-a", "capture-b", "capture-tzsp"):
                print(f"--- {service}", *stack.lines(service)[-15:], sep="\n")
            return
        report.run(f"compose {version}: Prometheus scrapes all, and evaluates our rules", scraped, stack)
        report.run(f"compose {version}: stops", relay.stops)
    run_keys(report, version, command)


def run_keys(report, version, command):
    """The same with keys."""
    with Stack(command, keys.FILES) as stack:
        tests = keys.Keys(stack)
        if not all(report.run(f"compose {version}, keys: {name}", step, tests) for name, step in keys.STEPS):
            for service in ("collector", "capture-a", "capture-b", "capture-tzsp"):
                print(f"--- {service}", *stack.lines(service)[-15:], sep="\n")


def scraped(stack):
    images.build_prometheus()
    prometheus.scrapes_all(stack)


def main():
    report = Report()
    try:
        with Engine() as engine:
            print(f"images: {images.build()}", flush=True)
            for test in image_tests.TESTS:
                report.run(f"image: {test.__name__.replace('_', ' ')}", test)
            units.test(report)
            for version in ("v1", "v2"):
                command = dict(engine.compose).get(version)
                if command is None:
                    report.skipped(f"compose {version}", "this version of compose is not installed")
                else:
                    run(report, version, command)
    except Skipped as reason:
        report.skipped("compose", reason)
    return report.close()


if __name__ == "__main__":
    sys.exit(main())
