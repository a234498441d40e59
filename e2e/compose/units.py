"""The systemd units, started by a systemd that runs in a container."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from e2e.compose import unit_keys
from e2e.compose.engine import run
from e2e.compose.images import DEMO, ROOT
from e2e.compose.inside.send import PORT
from e2e.compose.stack import contents
from testkit import pcap
from testkit.metrics import Metrics
from testkit.outcome import Skipped, check, equal, until

IMAGE = "packeteur-e2e-systemd"

DOCKERFILE = f"""
FROM {DEMO}
USER root
RUN apt-get update && apt-get install -y --no-install-recommends systemd && cp /usr/lib/packeteur/pcktr /usr/bin/pcktr
COPY systemd/*.service /etc/systemd/system/
COPY systemd /systemd
COPY inside /inside
HEALTHCHECK NONE
# systemd mounts credentials in a namespace of its own: services see them only if mounts are shared.
ENTRYPOINT ["sh", "-c", "mount --make-rshared / && exec /lib/systemd/systemd"]
"""

# What systemd needs to run in a container: cgroups, mounts, and namespaces for its services.
OPTIONS = ["--cgroupns", "private", "--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN"]
OPTIONS += ["--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"]
OPTIONS += ["--tmpfs", "/run", "--tmpfs", "/tmp", "--tmpfs", "/sys/fs/cgroup"]

# Metrics ports. All units run on one host, so each needs its own port.
METRICS = {"capture": 9108, "collect": 9109, "observe": 9110}
SETTINGS = {"capture": {"DEVICE": "lo", "FILTER": f"udp port {PORT}"}, "collect": {}}
SETTINGS["observe"] = SETTINGS["capture"]

CAP_NET_RAW = 1 << 13
COUNT = 200
# Seconds.
TIMEOUT = 30


class Units:
    """A container with our units. Use it as a context manager."""

    def __init__(self):
        with tempfile.TemporaryDirectory() as context:
            Path(context, "Dockerfile").write_text(DOCKERFILE)
            shutil.copytree(ROOT / "deploy/systemd", Path(context, "systemd"))
            shutil.copytree(ROOT / "e2e/compose/inside", Path(context, "inside"))
            command = ["docker", "build", "--network", "host", "-t", IMAGE, context]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            raise Skipped(f"systemd cannot be installed in an image: {done.stderr.strip().splitlines()[-1]}")
        self.name = run("docker", "run", "-d", *OPTIONS, IMAGE).strip()
        self.sent = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        run("docker", "rm", "-f", self.name)

    def execute(self, *command, check=True):
        return run("docker", "exec", self.name, *command, check=check)

    def systemctl(self, *arguments, check=True):
        return self.execute("systemctl", *arguments, check=check)

    def write(self, path, text):
        command = ["docker", "exec", "-i", self.name, "tee", path]
        subprocess.run(command, input=text.encode(), stdout=subprocess.DEVNULL, check=True, timeout=30)

    def pid(self):
        """The process id of the container's first process, as seen by the host."""
        return run("docker", "inspect", "--format", "{{.State.Pid}}", self.name).strip()

    def main_pid(self, mode):
        return self.systemctl("show", "-P", "MainPID", f"pcktr-{mode}").strip()

    def wait_for_systemd(self):
        """Waits until systemd is up. Skips the tests if it cannot run on this machine."""
        states = ("running", "degraded")
        try:
            until(lambda: self.systemctl("is-system-running", check=False).strip() in states, "it is not up", TIMEOUT)
        except Exception as failure:
            raise Skipped(f"systemd does not run in a container here: {failure}") from None

    def report_missing_settings(self):
        for mode in METRICS:
            self.systemctl("start", f"pcktr-{mode}", check=False)
            log = self.execute("journalctl", "-u", f"pcktr-{mode}", "-o", "cat", "--no-pager")
            check(f"no settings: /etc/default/pcktr-{mode} is missing" in log, log)

    def start(self):
        """With their default settings files, and a few settings of the test."""
        for mode, port in METRICS.items():
            settings = (ROOT / f"deploy/systemd/default/pcktr-{mode}").read_text()
            for name, value in ({"METRICS_ADDRPORT": f":{port}"} | SETTINGS[mode]).items():
                settings += f"{name}={value}\n"
            self.write(f"/etc/default/pcktr-{mode}", settings)
        for mode in METRICS:
            self.systemctl("restart", f"pcktr-{mode}")
            until(lambda: self.metrics(mode), f"pcktr-{mode} does not respond", TIMEOUT)
        self.wait_for_connection()

    def wait_for_connection(self):
        def up():
            metrics = self.metrics("collect")
            return metrics and metrics.sum("packeteur_source_up") == 1

        until(up, "the capture is not connected", TIMEOUT)

    def metrics(self, mode):
        scrape = (
            f"exec 3<>/dev/tcp/localhost/{METRICS[mode]} && printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3"
        )
        text = self.execute("bash", "-c", scrape, check=False)
        return Metrics(text.partition("\r\n\r\n")[2]) if text else None

    def files(self):
        """The packets of the collector's files, by file name."""
        folder = "/var/lib/pcktr-collect"
        with tempfile.TemporaryDirectory() as copies:
            names = self.execute("ls", folder).split()
            found = {}
            for name in names:
                run("docker", "cp", "-L", f"{self.name}:{folder}/{name}", f"{copies}/{name}")
                found[name] = pcap.parse(Path(copies, name).read_bytes()).packets
            return found

    def send(self):
        """Sends packets, and returns what must be written."""
        first = self.sent + 1
        self.execute("python3", "/inside/send.py", "unit", first, COUNT, "127.0.0.1", PORT)
        self.sent += COUNT
        return {("unit", number): 1 for number in range(first, first + COUNT)}

    def relay_and_measure(self):
        """Packets sent on the host are in the collector's file, and counted by the exporter."""
        before = self.metrics("observe").sum("packeteur_capture_total")
        expected = self.send()
        until(lambda: len(self.files()["packets.pcap"]) >= COUNT, "the packets are not in the file", TIMEOUT)
        equal(contents(self.files()["packets.pcap"]), expected, "packets")
        until(
            lambda: self.metrics("observe").sum("packeteur_capture_total") - before == COUNT,
            "the exporter counts others",
            TIMEOUT,
        )

    def are_confined(self):
        """They run as separate users, with a system call filter, and without the capability that opened the devices."""
        users = set()
        for mode in METRICS:
            pid = self.main_pid(mode)
            status = dict(re.findall(r"^(\w+):\s+(.*)$", self.execute("cat", f"/proc/{pid}/status"), re.MULTILINE))
            users.add(status["Uid"].split()[0])
            bound = 0 if mode == "collect" else CAP_NET_RAW
            for kind, want in (("CapEff", 0), ("CapPrm", 0), ("CapBnd", bound)):
                equal(int(status[kind], 16), want, f"{kind} of pcktr-{mode}")
            equal((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"), f"NoNewPrivs and Seccomp of pcktr-{mode}")
        check("0" not in users and len(users) == len(METRICS), f"users: {users}")

    def restart_after_kill(self):
        """After SIGKILL they are restarted, and the collector keeps the file that it had written."""
        for mode in METRICS:
            pid = self.main_pid(mode)
            self.systemctl("kill", "--kill-who=main", "--signal=KILL", f"pcktr-{mode}")

            def restarted():
                now = self.main_pid(mode)
                return now not in ("0", pid) and self.metrics(mode)

            until(restarted, f"pcktr-{mode} is not restarted", TIMEOUT)
        self.wait_for_connection()
        files = self.files()
        kept = [packets for name, packets in files.items() if re.fullmatch(r"packets\.pcap\.\d{8}T\d{6}", name)]
        check(
            any(len(packets) >= COUNT for packets in kept),
            f"files: { ({name: len(found) for name, found in files.items()}) }",
        )
        self.relay_and_measure()

    def stop(self):
        for mode in METRICS:
            self.systemctl("stop", f"pcktr-{mode}")
            result = self.systemctl("show", "-p", "Result", "-p", "ExecMainStatus", f"pcktr-{mode}").split()
            equal(sorted(result), ["ExecMainStatus=0", "Result=success"], f"pcktr-{mode}")


STEPS = [
    Units.report_missing_settings,
    Units.start,
    Units.relay_and_measure,
    Units.are_confined,
    Units.restart_after_kill,
    *unit_keys.STEPS,
    Units.stop,
]


def test(report):
    """Runs the tests in order. The first failure ends them: each depends on the ones before."""
    try:
        units = Units()
    except Skipped as reason:
        report.skipped("units", reason)
        return
    with units:
        if not report.run("units: systemd runs", units.wait_for_systemd):
            return
        for step in STEPS:
            if not report.run(f"units: {step.__name__.replace('_', ' ')}", step, units):
                log = units.execute("journalctl", "-u", "pcktr-*", "-o", "short", "--no-pager", "-n", "40", check=False)
                print(log, flush=True)
                return
