"""The Docker engine: the one that runs, or one that the tests start."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from testkit.outcome import Failed, Skipped, until

# Seconds until a started engine must respond.
TIMEOUT = 60


def run(*command, timeout=120, check=True, **options):
    """Runs a command to completion and returns its standard output."""
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout,
        **options,
    )
    if check and done.returncode != 0:
        output = (done.stdout + done.stderr).decode(errors="replace")
        raise Failed(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{output[-4000:]}")
    return done.stdout.decode(errors="replace")


class Network:
    """Saves and restores what an engine changes in the machine's network."""

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
            # Tables that did not exist before are not in the saved rules: empty them.
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
    """A running engine. Use it as a context manager: it stops an engine that it has started."""

    def __init__(self):
        self.process = self.folder = self.network = None
        self.compose = []

    def __enter__(self):
        if shutil.which("docker") is None:
            raise Skipped("docker is not installed (Debian: docker.io)")
        if not self.is_running():
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
        # It leaves some mounts behind, such as network namespaces.
        for line in Path("/proc/self/mounts").read_text().splitlines():
            place = line.split()[1]
            if place.startswith(f"{self.folder}/"):
                run("umount", place)
        shutil.rmtree(self.folder)
        del os.environ["DOCKER_HOST"]

    def is_running(self):
        return subprocess.run(["docker", "info"], capture_output=True, timeout=30).returncode == 0

    def start(self):
        """Starts an engine. Its changes to the machine's network are undone at the end."""
        if os.geteuid() != 0:
            raise Skipped("no Docker engine is running, and starting one needs root")
        if shutil.which("dockerd") is None:
            raise Skipped("no Docker engine is running, and dockerd is not installed (Debian: docker.io)")
        self.folder = tempfile.mkdtemp(prefix="pcktr-docker-", dir="/var/tmp")
        socket, log = Path(self.folder, "sock"), Path(self.folder, "log")
        command = ["dockerd", "--host", f"unix://{socket}", "--data-root", f"{self.folder}/data"]
        command += ["--exec-root", f"{self.folder}/exec", "--pidfile", f"{self.folder}/pid"]
        os.environ["DOCKER_HOST"] = f"unix://{socket}"
        self.network = Network()
        with open(log, "wb") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            until(lambda: self.process.poll() is not None or self.is_running(), "dockerd does not respond", TIMEOUT)
            if self.process.poll() is not None:
                raise Failed("dockerd has exited")
        except Failed as failure:
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            self.__exit__()
            raise Skipped(f"{failure}: {' '.join(last)}") from None

    def find_compose(self):
        """The installed versions of compose and their commands: the plugin is v2, `docker-compose` may be v1."""
        found = []
        if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
            found.append(("v2", ["docker", "compose"]))
        if shutil.which("docker-compose"):
            version = run("docker-compose", "version", "--short").strip().lstrip("v")
            name = "v1" if version.startswith("1.") else "v2"
            if name not in [known for known, _ in found]:
                found.append((name, ["docker-compose"]))
        return found
