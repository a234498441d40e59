#!/usr/bin/env python3
"""The systemd units: what systemd's own tools say of them, and what they say where their settings are missing."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "e2e"))
sys.dont_write_bytecode = True

from e2e.deploy.report import Report  # noqa: E402
from testkit.outcome import Skipped, check, equal  # noqa: E402

UNITS = ROOT / "deploy" / "systemd"
MODES = ["capture", "collect", "observe"]

# What `systemd-analyze security` may say at most; 10 is a service without any bounds.
EXPOSURE = 3.0


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def need(program):
    if shutil.which(program) is None:
        raise Skipped(f"{program} is not installed")


def unit(mode):
    return UNITS / f"pcktr-{mode}.service"


def lines(mode, key):
    """The values of a key, in the order of the unit."""
    text = unit(mode).read_text()
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


def verify(mode):
    """Silent, in a root that has what the unit starts, as an installation has."""
    need("systemd-analyze")
    with tempfile.TemporaryDirectory() as root:
        programs = {
            command.lstrip("-+!:@").split()[0] for key in ("ExecStart", "ExecStartPre") for command in lines(mode, key)
        }
        for program in programs:
            path = Path(root, program.lstrip("/"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o755)
        system = Path(root, "etc/systemd/system")
        system.mkdir(parents=True)
        shutil.copy(unit(mode), system)
        shutil.copytree("/lib/systemd/system", Path(root, "lib/systemd/system"), symlinks=True)
        answer = run("systemd-analyze", "verify", f"--root={root}", unit(mode).name)
    said = answer.stdout + answer.stderr
    equal((answer.returncode, said), (0, ""), "exit code and what it says")


def verify_notices(mode):
    """The same check with a key that systemd doesn't know: it would have told."""
    need("systemd-analyze")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, unit(mode).name)
        copy.write_text(unit(mode).read_text().replace("NoNewPrivileges=", "NoNewPrivilege="))
        answer = run("systemd-analyze", "verify", str(copy))
    check("NoNewPrivilege" in answer.stderr, f"it says: {answer.stderr}")


def security(mode):
    need("systemd-analyze")
    answer = run("systemd-analyze", "security", "--offline=true", str(unit(mode)))
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", answer.stdout)
    check(found, f"no exposure level: {answer.stdout}{answer.stderr}")
    check(float(found[1]) < EXPOSURE, found[0])


def capabilities(mode):
    """One where a device is opened, else none."""
    want = [] if mode == "collect" else ["CAP_NET_RAW"]
    equal(lines(mode, "AmbientCapabilities"), want, "AmbientCapabilities")
    equal(lines(mode, "CapabilityBoundingSet"), want or [""], "CapabilityBoundingSet")


def missing_settings(mode):
    """The first command of the unit says which file is missing."""
    settings = f"/etc/default/pcktr-{mode}"
    if os.path.exists(settings):
        raise Skipped(f"{settings} is there")
    answer = run(*shlex.split(lines(mode, "ExecStartPre")[0]))
    equal(answer.stderr, f"no settings: {settings} is missing\n", "what it says")
    equal(answer.returncode, 78, "exit code")
    equal(lines(mode, "EnvironmentFile"), [f"-{settings}"], "EnvironmentFile")


def known_settings(mode):
    """What the file of settings names is a setting of the program, of that mode."""
    program = os.environ.get("PCKTR", str(ROOT / "target/release/pcktr"))
    if not os.access(program, os.X_OK):
        raise Skipped(f"{program} is not built")
    table = {
        name: modes
        for name, modes in re.findall(r"^([A-Z_]+)=.*?  (\S[a-z, ]*)$", run(program, "--help").stdout, re.MULTILINE)
    }
    text = (UNITS / "default" / f"pcktr-{mode}").read_text()
    names = re.findall(r"^#?([A-Z_]+)=", text, re.MULTILINE)
    check(names, "no settings")
    for name in names:
        check(name in table, f"{name}: no such setting")
        check(mode in table[name] or table[name].endswith("all"), f"{name}: not for {mode}, but for {table[name]}")


report = Report()
for mode in MODES:
    name = f"systemd: pcktr-{mode}"
    report.run(f"{name}: `systemd-analyze verify` is silent", verify, mode)
    report.run(f"{name}: `systemd-analyze verify` notices a mistake", verify_notices, mode)
    report.run(f"{name}: exposure is below {EXPOSURE}", security, mode)
    report.run(f"{name}: has just the capabilities that it needs", capabilities, mode)
    report.run(f"{name}: says which file is missing", missing_settings, mode)
    report.run(f"{name}: its settings are the program's", known_settings, mode)
report.close()
