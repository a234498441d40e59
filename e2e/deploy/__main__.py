#!/usr/bin/env python3
"""All tests of what is in deploy/ but those that need Docker: the units, the chart, dashboards and rules.

    python3 e2e/deploy/run.py

HELM_PYTHON is a Python that has what helm.py needs; else target/helm/bin/python is taken, where it is there.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ["systemd.py", "helm.py", "prometheus.py"]
SUMS = re.compile(r"(\d+) passed, (\d+) failed, (\d+) skipped")


def python(script):
    own = os.environ.get("HELM_PYTHON") or str(ROOT / "target/helm/bin/python")
    return own if script == "helm.py" and os.access(own, os.X_OK) else sys.executable


def main():
    sums = [0, 0, 0]
    for script in SCRIPTS:
        path = Path(__file__).with_name(script)
        process = subprocess.Popen([python(script), path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        last = ""
        for line in process.stdout:
            closing = SUMS.fullmatch(line.strip())
            if closing is None:
                print(line, end="", flush=True)
            last = line.strip()
        process.wait()
        closing = SUMS.fullmatch(last)
        # A script that does not come to its closing line has failed, whatever it has said before.
        found = [int(count) for count in closing.groups()] if closing else [0, 1, 0]
        sums = [a + b for a, b in zip(sums, found)]
        if closing is None:
            print(f"FAIL {script}: it has ended ({process.returncode}) without its sums", flush=True)
    print("{} passed, {} failed, {} skipped".format(*sums))
    sys.exit(1 if sums[1] else 0)


main()
