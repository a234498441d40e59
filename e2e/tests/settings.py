"""Settings of the real program: environment and flags, help, version, errors."""

import os
import re
import subprocess

from testkit import frames, pcap
from testkit.build import PCKTR, ROOT
from testkit.outcome import check, equal


def run(*flags, **environment):
    """Runs the program. Returns exit code, standard output, standard error."""
    done = subprocess.run(
        [PCKTR, *flags], env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True, timeout=20
    )
    return done.returncode, done.stdout, done.stderr


def test_help_and_version(testbed):
    """`--help` lists the settings of the README, `--version` the version. Both exit with code 0."""
    code, out, err = run("--help")
    equal((code, err), (0, ""), "exit code, standard error")
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("<!-- /settings -->")[0]
    settings = re.findall(r"^\| `([A-Z_]+)` \|", table, re.MULTILINE)
    check("LOG" in settings, "no settings in the README")
    for setting in settings:
        check(f"\n{setting}=" in out, f"`{setting}` is not in the help")
    code, out, err = run("--version")
    check((code, err) == (0, "") and out.startswith("pcktr "), f"{code} {out} {err}")


def test_flag_overrides_environment(testbed):
    """A flag overrides the variable of the same name. Variables that are not UTF-8 are ignored."""
    packets = frames.packets(10)
    path = testbed.write("in.pcap", pcap.encode(packets))
    prefix = ("env", "MODE=collect", f"PS1={os.fsdecode(bytes([0xFF]))}", "READ_FILE=/nowhere")
    argv = [*prefix, PCKTR, "--mode", "observe", f"--read-file={path}", "--metrics-addrport", "off"]
    observe = testbed.start("flags", *argv, "--metrics-file", testbed.path("flags.prom"))
    observe.wait()
    with open(testbed.path("flags.prom"), encoding="utf-8") as file:
        check("\ncapture_packets_processed_total 10\n" in file.read(), "ten packets were not measured")


def test_all_invalid_settings_are_reported(testbed):
    """One line for each invalid setting, with value and remedy; exit code 64; nothing on standard output."""
    code, out, err = run(MODE="capture", SNAPLEN="0", BATCH_DELAY="soon", METRICS_ADDRPORT="9108", COMPRESSION="gzip")
    equal((code, out), (64, ""), "exit code, standard output")
    reported = [line.split(":")[0] for line in err.splitlines()]
    equal(sorted(reported), ["BATCH_DELAY", "COMPRESSION", "METRICS_ADDRPORT", "SNAPLEN"], f"settings reported: {err}")
    for line in err.splitlines():
        check("`" in line and "(" in line, f"no value or no remedy: {line}")


def test_settings_are_checked_first(testbed):
    """Settings are checked before a port is bound, a file truncated, or a device opened."""
    out = testbed.write("precious.pcap", b"precious")
    code, _, err = run("--mode=collect", f"--output={out}", "--merge-window=never")
    equal(code, 64, f"exit code ({err})")
    with open(out, "rb") as file:
        equal(file.read(), b"precious", "the output file")
