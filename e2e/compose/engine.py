"""The Docker engine: the one that runs, or one of the test's own."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from testkit.outcome import Failed, Skipped, until

# For an engine to answer after its start.
START = 60


def run(*command, timeout=120, check=True, **options):
    """Runs a command to its end. Answers what it wrote to standard output."""
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=timeout,
        **options,
    )
    if check and done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace")
        raise Failed(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{said[-4000:]}")
    return done.stdout.decode(errors="replace")


class Network:
    """What an engine changes of the machine's network, as it was before."""

    BRIDGE = Path("/sys/class/net/docker0")
    FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")

    def __init__(self):
        self.bridge = self.BRIDGE.exists()
        self.forwarding = self.FORWARDING.read_text()
        self.rules = run("iptables-save") if shutil.which("iptables-save") else None

    def restore(self):
        if not self.bridge and self.BRIDGE.exists():
            run("ip", "link", "del", self.BRIDGE.name)
        self.FORWARDING.write_text(self.forwarding)
        if self.rules is not None:
            # Tables that were not there before are not in what was saved: they become as if they were not.
            empty = "".join(
                f"*{table}\n" + "".join(f":{chain} ACCEPT [0:0]\n" for chain in chains) + "COMMIT\n"
                for table, chains in (
                    ("filter", ["INPUT", "FORWARD", "OUTPUT"]),
                    ("nat", ["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"]),
                )
                if f"*{table}\n" not in self.rules
            )
            subprocess.run(["iptables-restore"], input=(empty + self.rules).encode(), timeout=30, check=True)


class Engine:
    """An engine that answers. Used as a context: one that was started here ends with it."""

    def __init__(self):
        self.process = self.folder = self.network = None
        self.compose = []

    def __enter__(self):
        if shutil.which("docker") is None:
            raise Skipped("docker is not installed (Debian: docker.io)")
        if not self.answers():
            self.start()
        try:
            self.compose = self.find_compose()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process is None:
            return
        self.process.terminate()
        self.process.wait(60)
        self.network.restore()
        # It leaves some of what it has mounted, like the network namespace of the machine.
        for line in Path("/proc/self/mounts").read_text().splitlines():
            place = line.split()[1]
            if place.startswith(f"{self.folder}/"):
                run("umount", place)
        shutil.rmtree(self.folder)
        del os.environ["DOCKER_HOST"]

    def answers(self):
        return subprocess.run(["docker", "info"], capture_output=True, timeout=30).returncode == 0

    def start(self):
        """Starts an engine; what it changes of the machine's network is put back at its end."""
        if os.geteuid() != 0:
            raise Skipped("no Docker engine answers, and only root can start one")
        if shutil.which("dockerd") is None:
            raise Skipped("no Docker engine answers, and dockerd is not installed (Debian: docker.io)")
        self.folder = tempfile.mkdtemp(prefix="pcktr-docker-", dir="/var/tmp")
        socket, log = Path(self.folder, "sock"), Path(self.folder, "log")
        command = ["dockerd", "--host", f"unix://{socket}", "--data-root", f"{self.folder}/data"]
        command += ["--exec-root", f"{self.folder}/exec", "--pidfile", f"{self.folder}/pid"]
        os.environ["DOCKER_HOST"] = f"unix://{socket}"
        self.network = Network()
        with open(log, "wb") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            until(lambda: self.process.poll() is not None or self.answers(), "dockerd does not answer", START)
            if self.process.poll() is not None:
                raise Failed("dockerd has ended")
        except Failed as failure:
            said = log.read_text(errors="replace").strip().splitlines()[-1:]
            self.__exit__()
            raise Skipped(f"{failure}: {' '.join(said)}") from None

    def find_compose(self):
        """The commands of compose that are there: the plugin (version 2 and later), and version 1."""
        found = []
        if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
            found.append(("v2", ["docker", "compose"]))
        if shutil.which("docker-compose"):
            version = run("docker-compose", "version", "--short").strip().lstrip("v")
            name = "v1" if version.startswith("1.") else "v2"
            if name not in [known for known, _ in found]:
                found.append((name, ["docker-compose"]))
        return found
