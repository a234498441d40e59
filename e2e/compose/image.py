"""The image by itself: who it is, what it may, and what it says."""

import json
import subprocess

from e2e.compose.engine import run
from e2e.compose.images import PCKTR
from testkit.outcome import check, equal

# MiB. Debian's slim image has 75, one by debootstrap twice that; libraries 15, twice the program 8.
LARGEST = 200


def inspect():
    return json.loads(run("docker", "image", "inspect", PCKTR))[0]


def shell(command, *options):
    return run("docker", "run", "--rm", *options, "--entrypoint", "bash", PCKTR, "-c", command)


def refused(*arguments):
    """What it says, and its exit code."""
    done = subprocess.run(["docker", "run", "--rm", *arguments], capture_output=True, timeout=60)
    return (done.stdout + done.stderr).decode(errors="replace"), done.returncode


def user():
    equal(inspect()["Config"]["User"], "7386:7386", "user")
    equal(shell("id -u").strip(), "7386", "user inside")


def capability():
    """Just one file has a capability, and just one."""
    files = shell("getcap -r / 2>/dev/null").splitlines()
    equal(files, ["/usr/bin/pcktr cap_net_raw=ep"], "files with capabilities")


def capability_is_needed():
    """With it devices open; without it the kernel says so, and the other file runs."""
    said, code = refused(
        "--cap-drop", "ALL", "--cap-add", "NET_RAW", PCKTR, "--mode", "observe", "--max-duration", "100ms"
    )
    check(code == 0 and "capturing" in said, f"exit code {code}: {said}")
    said, code = refused("--cap-drop", "ALL", PCKTR, "--version")
    check(code != 0 and "operation not permitted" in said, f"exit code {code}: {said}")
    # The collector's standard output begins with a pcap header, which is no text.
    plain = [
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges:true",
        "--entrypoint",
        "/usr/lib/packeteur/pcktr",
    ]
    said, code = refused(*plain, PCKTR, "--mode", "collect", "--max-duration", "100ms")
    check(code == 0 and "waiting for captures" in said, f"exit code {code}: {said}")


def labels():
    labels = inspect()["Config"]["Labels"]
    for name in ("title", "description", "licenses", "version", "revision"):
        check(labels.get(f"org.opencontainers.image.{name}"), f"no label {name}")


def health():
    """The check knows every form of METRICS_ADDRPORT."""
    script = "/usr/lib/packeteur/healthy"
    check(script in inspect()["Config"]["Healthcheck"]["Test"], "no health check")
    program = "/usr/lib/packeteur/pcktr --mode collect >/dev/null 2>&1 &"
    for address in (":9108", "127.0.0.1:9109", "0.0.0.0:9110", "localhost:9111"):
        wait = f"for _ in {{1..50}}; do {script} 2>/dev/null && exit 0; sleep 0.1; done; exit 1"
        shell(f"{program} {wait}", "-e", f"METRICS_ADDRPORT={address}")
    shell(script, "-e", "METRICS_ADDRPORT=off")
    _, code = refused("--entrypoint", script, PCKTR)
    equal(code, 1, "exit code of the check where nothing listens")


def bad_settings():
    said, code = refused("-e", "RELAY_ENDPOINT=collector", PCKTR)
    equal(code, 64, "exit code")
    check("RELAY_ENDPOINT" in said and "tcp://" in said, said)


def contents():
    """Nothing of the machine that it was built on is in it."""
    files = shell("ls -a /src /root/.cargo /root/.git* /.git 2>/dev/null; true").strip()
    equal(files, "", "files of the build")
    size = inspect()["Size"] / (1 << 20)
    check(size < LARGEST, f"{size:.0f} MiB")


TESTS = [user, capability, capability_is_needed, labels, health, bad_settings, contents]
