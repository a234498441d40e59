"""Settings, as far as only the real program shows: the environment against flags, help, version, what is refused."""

import os
import subprocess

from harness import frames, pcap
from harness.outcome import check, equal
from harness.pcktr import PCKTR


def ask(*flags, **environment):
    """Exit code, standard output, standard error."""
    done = subprocess.run(
        [PCKTR, *flags], env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True, timeout=20
    )
    return done.returncode, done.stdout, done.stderr


def test_help_and_version(scene):
    """`--help` names every setting that the design's table has, `--version` the version; both with exit code 0."""
    code, out, err = ask("--help")
    equal((code, err), (0, ""), "exit code, standard error")
    for setting in (
        "MODE DEVICE FILTER SNAPLEN BUFFER_SIZE PROMISCUOUS READ_FILE TZSP_PORT SOURCE_NAME RELAY_ENDPOINT "
        "RELAY_BUFFER BATCH_BYTES BATCH_DELAY COMPRESSION COLLECT_ENDPOINT OUTPUT OUTPUT_FORMAT MERGE_WINDOW "
        "EXIT_ON_END MAX_PACKETS MAX_DURATION OBSERVE STREAM_AGE STREAM_FINALIZED_AGE MAX_STREAMS MAX_FLOWS METRICS_FILE METRICS_ADDRPORT LOG"
    ).split():
        check(f"\n{setting}=" in out, f"`{setting}` is not in the help")
    code, out, err = ask("--version")
    check((code, err) == (0, "") and out.startswith("pcktr "), f"{code} {out} {err}")


def test_a_flag_wins(scene):
    """A flag of the same name wins over the environment; what is not UTF-8 in the environment disturbs nobody."""
    packets = frames.packets(10)
    path = scene.write("in.pcap", pcap.encode(packets))
    prefix = ("env", "MODE=collect", f"PS1={os.fsdecode(bytes([0xFF]))}", "READ_FILE=/nowhere")
    argv = [*prefix, PCKTR, "--mode", "observe", f"--read-file={path}", "--metrics-addrport", "off"]
    observe = scene.start("flags", *argv, "--metrics-file", scene.path("flags.prom"))
    observe.wait()
    with open(scene.path("flags.prom"), encoding="utf-8") as file:
        check("\ncapture_packets_processed_total 10\n" in file.read(), "ten packets were measured")


def test_all_that_is_wrong_is_told(scene):
    """A line for each: setting, value, remedy; exit code 64; nothing on standard output."""
    code, out, err = ask(MODE="capture", SNAPLEN="0", BATCH_DELAY="soon", METRICS_ADDRPORT="9108", COMPRESSION="gzip")
    equal((code, out), (64, ""), "exit code, standard output")
    told = [line.split(":")[0] for line in err.splitlines()]
    equal(sorted(told), ["BATCH_DELAY", "COMPRESSION", "METRICS_ADDRPORT", "SNAPLEN"], f"settings that are told: {err}")
    for line in err.splitlines():
        check("`" in line and "(" in line, f"value and remedy: {line}")


def test_nothing_opens_before_settings_are_right(scene):
    """A wrong setting is found before a port is taken, a file emptied, or a device opened."""
    out = scene.write("precious.pcap", b"precious")
    code, _, err = ask("--mode=collect", f"--output={out}", "--merge-window=never")
    equal(code, 64, f"exit code ({err})")
    with open(out, "rb") as file:
        equal(file.read(), b"precious", "the output file")
