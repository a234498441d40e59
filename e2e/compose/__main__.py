#!/usr/bin/env python3
"""The end-to-end tests that need Docker: of the image, of the systemd units, and of compose.yaml with each version of
compose that is installed.

    python3 e2e/compose/run.py

It needs Docker, and makes what it has not got: an engine where none runs, base images where no registry can be reached.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "e2e"))
sys.dont_write_bytecode = True

from e2e.compose import demo, image, images, prometheus, units  # noqa: E402
from e2e.compose.engine import Engine  # noqa: E402
from e2e.compose.relay import Relay  # noqa: E402
from e2e.compose.stack import DEMO_FILES, TEST_FILES, Stack  # noqa: E402
from e2e.deploy.report import Report  # noqa: E402
from testkit.outcome import Skipped, check, equal  # noqa: E402

STEPS = [
    ("starts, and is healthy", Relay.starts),
    ("brings packets of hosts and router, complete and in order", Relay.is_complete_and_in_order),
    ("prints them by tcpdump", Relay.prints),
    ("measures what was sent", Relay.measures),
    ("goes on when a capture is cut off and comes back", Relay.is_cut_off_and_comes_back),
    ("goes on when the collector is killed and comes back", Relay.survives_its_collector),
    ("goes on when a capture is killed and comes back", Relay.restarts_a_capture),
]


def configurations(stack):
    """The files are accepted as they are; a variable that is missing is named."""
    stack.compose("config", "-q")
    capture = ["-f", str(ROOT / "deploy/compose/capture.yaml"), "config", "-q"]
    environment = {name: value for name, value in stack.environment.items() if name != "RELAY_ENDPOINT"}
    done = subprocess.run([*stack.command, *capture], env=environment, capture_output=True, text=True, timeout=60)
    check(done.returncode != 0, "it is accepted without RELAY_ENDPOINT")
    check("say where the collector is, like RELAY_ENDPOINT=tcp://" in done.stderr, done.stderr)
    environment["RELAY_ENDPOINT"] = "tcp://collector.example.org:7386"
    done = subprocess.run([*stack.command, *capture], env=environment, capture_output=True, text=True, timeout=60)
    equal((done.returncode, done.stderr), (0, ""), "exit code and what it says")


def run(report, version, command):
    """All of it with one version of compose. A step that fails leaves nothing for the next to go on with."""
    with Stack(command, DEMO_FILES) as stack:
        report.run(f"compose {version}: takes the files, and names a variable that is missing", configurations, stack)
        report.run(f"compose {version}: shows it all as it is", demo.shows_it_all, stack)
    with Stack(command, TEST_FILES) as stack:
        relay = Relay(stack)
        whole = all(report.run(f"compose {version}: {name}", step, relay) for name, step in STEPS)
        if not whole:
            for service in ("collector", "capture-a", "capture-b", "capture-tzsp"):
                print(f"--- {service}", *stack.lines(service)[-15:], sep="\n")
            return
        report.run(f"compose {version}: Prometheus scrapes all, with our rules", scraped, stack)
        report.run(f"compose {version}: stops", relay.stops)


def scraped(stack):
    images.build_prometheus()
    prometheus.scrapes(stack)


def main():
    report = Report()
    try:
        with Engine() as engine:
            print(f"images: {images.build()}", flush=True)
            for test in image.TESTS:
                report.run(f"image: {test.__name__.replace('_', ' ')}", test)
            units.test(report)
            for version in ("v1", "v2"):
                command = dict(engine.compose).get(version)
                if command is None:
                    report.skip(f"compose {version}", "this version of compose is not installed")
                else:
                    run(report, version, command)
    except Skipped as reason:
        report.skip("compose", reason)
    report.close()


main()
