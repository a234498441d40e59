"""Two hosts joined by a cable: network namespaces, each held by a process that dies with this one."""

import ctypes
import os
import socket
import subprocess

from .process import Failed

# sched.h of Linux.
CLONE_NEWNET = 0x40000000

libc = ctypes.CDLL(None, use_errno=True)


class Host:
    """A network namespace without addresses, where nothing is sent but what a section sends."""

    def __init__(self, programs):
        self.holder = programs.start("unshare", "--net", "sh", "-c", "echo >&2 here; exec sleep 86400")
        self.holder.wait_for_log("here")
        # IPv6 would announce itself.
        self.run("sh", "-c", "echo 1 | tee /proc/sys/net/ipv6/conf/*/disable_ipv6")
        self.run("ip", "link", "set", "lo", "up")

    @property
    def prefix(self):
        """What to put in front of a command so that it runs here; the process that is started becomes it."""
        return ("nsenter", f"--net=/proc/{self.holder.pid}/ns/net")

    def run(self, *argv):
        done = subprocess.run([*self.prefix, *argv], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"{' '.join(argv)}: {done.stderr}")
        return done.stdout

    def socket(self, *kind):
        """A socket of this host. It stays here."""
        with open("/proc/thread-self/ns/net", "rb") as before, open(f"/proc/{self.holder.pid}/ns/net", "rb") as here:
            enter(here)
            try:
                return socket.socket(*kind)
            finally:
                enter(before)

    def join(self, device, other, other_device):
        """A cable to another host."""
        self.run(
            "ip", "link", "add", device, "type", "veth",
            "peer", "name", other_device, "netns", str(other.holder.pid),
        )  # fmt: skip
        self.run("ip", "link", "set", device, "up")
        other.run("ip", "link", "set", other_device, "up")


def enter(namespace):
    """Moves this thread."""
    if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
        raise Failed(f"setns: {os.strerror(ctypes.get_errno())}")


def why_not():
    """Why there can be no hosts here; None where there can."""
    if os.geteuid() != 0:
        return "it takes root to make network namespaces and to capture"
    made = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    return None if made.returncode == 0 else f"network namespaces are forbidden here: {made.stderr.strip()}"
