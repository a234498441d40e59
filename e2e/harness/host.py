"""Hosts: network namespaces, with devices, programs and sockets of their own."""

import contextlib
import os
import socket
import subprocess

from . import isolation
from .outcome import Failed


class Host:
    """A network namespace. The one called `home` is that of the test itself."""

    def __init__(self, name):
        self.name = name
        self.is_home = name == "home"
        if self.is_home:
            self.path = "/proc/self/ns/net"
        else:
            self.path = f"{isolation.NETNS}/{name}"
            run(["ip", "netns", "add", name])
            self.run("ip", "link", "set", "lo", "up")
        self.namespace = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        # Below those from which the kernel takes one where anybody asks for port 0 (`ip_local_port_range`).
        self.ports = iter(range(20_000, 32_000))

    def command(self, *argv):
        """What to execute so that `argv` runs here; the process that is started becomes it."""
        return list(argv) if self.is_home else ["ip", "netns", "exec", self.name, *argv]

    def run(self, *argv):
        """Runs a command to its end, and returns what it prints."""
        return run(self.command(*argv))

    @contextlib.contextmanager
    def entered(self):
        """What this thread opens meanwhile is opened here, and stays here."""
        with open("/proc/thread-self/ns/net", "rb") as before:
            isolation.call("setns", self.namespace, isolation.CLONE_NEWNET)
            try:
                yield
            finally:
                isolation.call("setns", before.fileno(), isolation.CLONE_NEWNET)

    def socket(self, *args):
        """A socket of this host."""
        if self.is_home:
            return socket.socket(*args)
        with self.entered():
            return socket.socket(*args)

    def connect(self, address, port, seconds=10):
        """A TCP connection from this host."""
        connection = self.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        connection.settimeout(seconds)
        connection.connect((address, port))
        return connection

    def free_port(self):
        """A TCP port that nobody listens on, another one each time."""
        for port in self.ports:
            with self.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                try:
                    probe.bind(("::", port))
                except OSError:
                    continue
                return port
        raise Failed("there is no port left")


def run(argv):
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def quiet(host):
    """No packets but those that the test sends: IPv6 off, and with it its announcements of neighbours and routers."""
    host.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")


def join(one, device, other, other_device, addresses=None):
    """A cable between two hosts. `addresses`, where given, are those of its ends."""
    one.run("ip", "link", "add", device, "type", "veth", "peer", "name", "cable-end")
    if other.is_home:
        one.run("ip", "link", "set", "cable-end", "name", other_device)
    else:
        one.run("ip", "link", "set", "cable-end", "netns", other.path, "name", other_device)
    for host, name, address in zip((one, other), (device, other_device), addresses or (None, None)):
        if address:
            host.run("ip", "address", "add", address, "dev", name)
        host.run("ip", "link", "set", name, "up")


def lan(home, names):
    """Hosts on one switch. Host N has `eth0` with the address 10.9.0.N, from 1 on; `home`, where the switch is,
    10.9.0.100."""
    quiet(home)
    # One that snoops on multicast would take part in it, and send packets of its own.
    home.run("ip", "link", "add", "switch", "type", "bridge", "mcast_snooping", "0")
    home.run("ip", "address", "add", "10.9.0.100/24", "dev", "switch")
    home.run("ip", "link", "set", "switch", "up")
    hosts = []
    for number, name in enumerate(names, 1):
        host = Host(name)
        quiet(host)
        join(home, f"port{number}", host, "eth0", (None, f"10.9.0.{number}/24"))
        home.run("ip", "link", "set", f"port{number}", "master", "switch")
        hosts.append(host)
    return hosts
