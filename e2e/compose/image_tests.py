"""Tests of the image: user, capabilities, labels, health check, and contents."""

import json
import subprocess

from e2e.compose.engine import run
from e2e.compose.images import PCKTR
from testkit.outcome import check, equal

# MiB. Debian's slim image has 75 and one by debootstrap 150, the libraries 15, two copies of the program 8.
MAX_SIZE = 200


def inspect():
    return json.loads(run("docker", "image", "inspect", PCKTR))[0]


def shell(command, *options):
    return run("docker", "run", "--rm", *options, "--entrypoint", "bash", PCKTR, "-c", command)


def run_image(*arguments):
    """Runs the image. Returns its output and its exit code."""
    done = subprocess.run(["docker", "run", "--rm", *arguments], capture_output=True, timeout=60)
    return (done.stdout + done.stderr).decode(errors="replace"), done.returncode


def runs_as_user():
    equal(inspect()["Config"]["User"], "7386:7386", "user")
    equal(shell("id -u").strip(), "7386", "user in the container")


def has_one_capability():
    """Exactly one file has exactly one capability."""
    files = shell("getcap -r / 2>/dev/null").splitlines()
    equal(files, ["/usr/bin/pcktr cap_net_raw=ep"], "files with capabilities")


def needs_capability_for_devices_only():
    """With NET_RAW it captures. Without it, the kernel starts only the file without the capability."""
    output, code = run_image(
        "--cap-drop", "ALL", "--cap-add", "NET_RAW", PCKTR, "--mode", "observe", "--max-duration", "100ms"
    )
    check(code == 0 and "capturing" in output, f"exit code {code}: {output}")
    output, code = run_image("--cap-drop", "ALL", PCKTR, "--version")
    check(code != 0 and "operation not permitted" in output, f"exit code {code}: {output}")
    plain = [
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges:true",
        "--entrypoint",
        "/usr/lib/packeteur/pcktr",
    ]
    output, code = run_image(*plain, PCKTR, "--mode", "collect", "--max-duration", "100ms")
    check(code == 0 and "waiting for captures" in output, f"exit code {code}: {output}")


def has_labels():
    labels = inspect()["Config"]["Labels"]
    for name in ("title", "description", "licenses", "version", "revision"):
        check(labels.get(f"org.opencontainers.image.{name}"), f"no label {name}")


def checks_health():
    """The health check supports every form of METRICS_ADDRPORT."""
    script = "/usr/lib/packeteur/healthy"
    check(script in inspect()["Config"]["Healthcheck"]["Test"], "no health check")
    program = "/usr/lib/packeteur/pcktr --mode collect >/dev/null 2>&1 &"
    for address in (":9108", "127.0.0.1:9109", "0.0.0.0:9110", "localhost:9111"):
        wait = f"for _ in {{1..50}}; do {script} 2>/dev/null && exit 0; sleep 0.1; done; exit 1"
        shell(f"{program} {wait}", "-e", f"METRICS_ADDRPORT={address}")
    shell(script, "-e", "METRICS_ADDRPORT=off")
    _, code = run_image("--entrypoint", script, PCKTR)
    equal(code, 1, "exit code of the check if nothing listens")


def rejects_invalid_settings():
    output, code = run_image("-e", "RELAY_ENDPOINT=collector", PCKTR)
    equal(code, 64, "exit code")
    check("RELAY_ENDPOINT" in output and "tcp://" in output, output)


def contains_no_sources():
    """It has no sources and no files of the build, and is small."""
    files = shell("ls -a /src /root/.cargo /root/.git* /.git 2>/dev/null; true").strip()
    equal(files, "", "files of the build")
    size = inspect()["Size"] / (1 << 20)
    check(size < MAX_SIZE, f"{size:.0f} MiB")


TESTS = [
    runs_as_user,
    has_one_capability,
    needs_capability_for_devices_only,
    has_labels,
    checks_health,
    rejects_invalid_settings,
    contains_no_sources,
]
