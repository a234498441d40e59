"""The systemd units: checked with systemd's own tools, and compared with the program's settings."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from testkit.build import PCKTR, ROOT, need_pcktr
from testkit.outcome import Skipped, check, equal
from testkit.report import Report

UNITS = ROOT / "deploy" / "systemd"
MODES = ["capture", "collect", "observe"]

# The limit for the exposure level of `systemd-analyze security`; 10 is a service without any restrictions.
EXPOSURE = 2.0


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def need(program):
    if shutil.which(program) is None:
        raise Skipped(f"{program} is not installed")


def unit(mode):
    return UNITS / f"pcktr-{mode}.service"


def drop_in(mode):
    return UNITS / f"{unit(mode).name}.d" / "keys.conf"


def lines(mode, key):
    """The values of a key, in the unit's order."""
    text = unit(mode).read_text()
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


def verify(mode):
    """`systemd-analyze verify` has no complaints, in a root directory with the programs that the unit starts, also with
    its drop-in."""
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
        if drop_in(mode).exists():
            shutil.copytree(drop_in(mode).parent, system / drop_in(mode).parent.name)
        shutil.copytree("/lib/systemd/system", Path(root, "lib/systemd/system"), symlinks=True)
        result = run("systemd-analyze", "verify", f"--root={root}", unit(mode).name)
    equal((result.returncode, result.stdout + result.stderr), (0, ""), "exit code and output")


def verify_notices(mode):
    """The same check reports an unknown key."""
    need("systemd-analyze")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, unit(mode).name)
        copy.write_text(unit(mode).read_text().replace("NoNewPrivileges=", "NoNewPrivilege="))
        result = run("systemd-analyze", "verify", str(copy))
    check("NoNewPrivilege" in result.stderr, f"output: {result.stderr}")


def security(mode):
    need("systemd-analyze")
    result = run("systemd-analyze", "security", "--offline=true", str(unit(mode)))
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", result.stdout)
    check(found, f"no exposure level: {result.stdout}{result.stderr}")
    check(float(found[1]) < EXPOSURE, found[0])


def capabilities(mode):
    """One for units that open devices, none for the collector."""
    want = [] if mode == "collect" else ["CAP_NET_RAW"]
    equal(lines(mode, "AmbientCapabilities"), want, "AmbientCapabilities")
    equal(lines(mode, "CapabilityBoundingSet"), want or [""], "CapabilityBoundingSet")


def limits(mode):
    """A service that goes wrong takes no more than its share of the host."""
    for key in ("MemoryMax", "LimitNOFILE", "TasksMax"):
        values = lines(mode, key)
        check(len(values) == 1 and re.fullmatch(r"\d+[MG]?", values[0]), f"{key}: {values}")


def sandbox(mode):
    """systemd's filter allows the system calls with which the program confines itself. It would kill the program."""
    allowed = " ".join(lines(mode, "SystemCallFilter")).split()
    for name in ("capset", "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "seccomp"):
        check(name in allowed, f"{name} is not allowed: {allowed}")


def missing_settings(mode):
    """The unit's first command names the missing file."""
    settings = f"/etc/default/pcktr-{mode}"
    if os.path.exists(settings):
        raise Skipped(f"{settings} exists")
    result = run(*shlex.split(lines(mode, "ExecStartPre")[0]))
    equal(result.stderr, f"no settings: {settings} is missing\n", "standard error")
    equal(result.returncode, 78, "exit code")
    equal(lines(mode, "EnvironmentFile"), [f"-{settings}"], "EnvironmentFile")


def known_settings(mode):
    """The settings in the unit's default file exist, and apply to its mode."""
    need_pcktr()
    table = dict(re.findall(r"^([A-Z_]+)=.*?  (\S[a-z, ]*)$", run(PCKTR, "--help").stdout, re.MULTILINE))
    text = (UNITS / "default" / f"pcktr-{mode}").read_text()
    names = re.findall(r"^#?([A-Z_]+)=", text, re.MULTILINE)
    check(names, "no settings")
    for name in names:
        check(name in table, f"{name}: no such setting")
        check(mode in table[name] or table[name].endswith("all"), f"{name}: not for {mode}, but for {table[name]}")


def drop_in_for_keys(mode):
    """The drop-in names settings that exist for this mode, and passes the secret key as a credential."""
    need_pcktr()
    text = drop_in(mode).read_text()
    settings = dict(re.findall(r"^Environment=([A-Z_]+)=(.*)$", text, re.MULTILINE))
    credentials = dict(re.findall(r"^LoadCredential=([^:]+):(.*)$", text, re.MULTILINE))
    equal(settings["KEY_FILE"], f"%d/{next(iter(credentials))}", "KEY_FILE")
    want = {"capture": {"KEY_FILE"}, "collect": {"KEY_FILE", "AUTHORIZED_KEYS"}}[mode]
    equal(set(settings), want, "settings")
    unknown = want - set(re.findall(r"^([A-Z_]+)=", run(PCKTR, "--help").stdout, re.MULTILINE))
    equal(unknown, set(), "unknown settings")


def main():
    report = Report()
    for mode in MODES:
        name = f"systemd: pcktr-{mode}"
        report.run(f"{name}: `systemd-analyze verify` accepts it", verify, mode)
        report.run(f"{name}: `systemd-analyze verify` reports an unknown key", verify_notices, mode)
        report.run(f"{name}: exposure is below {EXPOSURE}", security, mode)
        report.run(f"{name}: has only the capabilities that it needs", capabilities, mode)
        report.run(f"{name}: limits memory, descriptors and threads", limits, mode)
        report.run(f"{name}: lets the program confine itself", sandbox, mode)
        report.run(f"{name}: reports missing settings", missing_settings, mode)
        report.run(f"{name}: its settings exist", known_settings, mode)
        if mode != "observe":
            report.run(f"{name}: the drop-in for keys fits the program", drop_in_for_keys, mode)
    return report.close()


if __name__ == "__main__":
    sys.exit(main())
