"""All tests of deploy/ that need no Docker: units, chart, dashboards and rules.

    python3 -m e2e.deploy

The Helm tests need Python packages: they run with HELM_PYTHON, or with target/helm/bin/python if it exists.
"""

import os
import re
import subprocess
import sys

from testkit.build import ROOT

MODULES = ["systemd", "helm", "prometheus"]
SUMMARY = re.compile(r"(\d+) passed, (\d+) failed, (\d+) skipped")


def interpreter(module):
    helm = os.environ.get("HELM_PYTHON") or str(ROOT / "target/helm/bin/python")
    return helm if module == "helm" and os.access(helm, os.X_OK) else sys.executable


def run(module):
    """Runs the tests of one module, and prints their output. Returns how many passed, failed, and were skipped."""
    process = subprocess.Popen(
        [interpreter(module), "-m", f"e2e.deploy.{module}"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    summary = None
    for line in process.stdout:
        summary = SUMMARY.fullmatch(line.strip())
        if summary is None:
            print(line, end="", flush=True)
    process.wait()
    if summary is None:
        print(f"FAIL {module}: it ended without a summary (exit code {process.returncode})", flush=True)
        return [0, 1, 0]
    return [int(count) for count in summary.groups()]


def main():
    totals = [sum(counts) for counts in zip(*map(run, MODULES))]
    print("{} passed, {} failed, {} skipped".format(*totals))
    return 1 if totals[1] else 0


if __name__ == "__main__":
    sys.exit(main())
