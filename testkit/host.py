"""Hosts: network namespaces with their own devices, programs and sockets."""

import contextlib
import os
import socket
import subprocess

from . import isolation
from .outcome import Failed


class Host:
    """A network namespace. The host named `home` is the namespace of the current process."""

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
        # Below the range that the kernel uses for ephemeral ports (`ip_local_port_range`).
        self.ports = iter(range(20_000, 32_000))

    def close(self):
        """Deletes the namespace. It disappears once the last process in it has ended."""
        os.close(self.namespace)
        if not self.is_home:
            run(["ip", "netns", "delete", self.name])

    def command(self, argv):
        """The command that runs `argv` on this host, in the same process."""
        return [*argv] if self.is_home else ["ip", "netns", "exec", self.name, *argv]

    def run(self, *argv):
        """Runs a command to completion and returns its standard output."""
        return run(self.command(argv))

    @contextlib.contextmanager
    def entered(self):
        """Moves the current thread to this host while the block runs. Sockets opened meanwhile stay here."""
        with open("/proc/thread-self/ns/net", "rb") as before:
            isolation.syscall("setns", self.namespace, isolation.CLONE_NEWNET)
            try:
                yield
            finally:
                isolation.syscall("setns", before.fileno(), isolation.CLONE_NEWNET)

    def open_socket(self, *args):
        """Opens a socket on this host."""
        if self.is_home:
            return socket.socket(*args)
        with self.entered():
            return socket.socket(*args)

    def connect(self, address, port, seconds=10):
        """Opens a TCP connection from this host."""
        connection = self.open_socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        connection.settimeout(seconds)
        connection.connect((address, port))
        return connection

    def free_port(self, kind=socket.SOCK_STREAM):
        """A port that is not in use, a different one on each call."""
        has_ipv6 = os.path.exists("/proc/net/if_inet6")
        for port in self.ports:
            with self.open_socket(socket.AF_INET6 if has_ipv6 else socket.AF_INET, kind) as probe:
                try:
                    if has_ipv6:
                        probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                    probe.bind(("", port))
                except OSError:
                    continue
                return port
        raise Failed("no free port left")


def run(argv):
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def disable_ipv6(host):
    """Keeps the host silent: IPv6 sends neighbour and router solicitations."""
    host.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")


def join(one, device, other, other_device, addresses=None):
    """Connects two hosts with a veth pair. `addresses` are those of its two ends."""
    one.run("ip", "link", "add", device, "type", "veth", "peer", "name", "peer-end")
    if other.is_home:
        one.run("ip", "link", "set", "peer-end", "name", other_device)
    else:
        one.run("ip", "link", "set", "peer-end", "netns", other.path, "name", other_device)
    for host, name, address in zip((one, other), (device, other_device), addresses or (None, None)):
        if address:
            host.run("ip", "address", "add", address, "dev", name)
        host.run("ip", "link", "set", name, "up")


def lan(home, names):
    """Hosts on one switch. Host N, counted from 1, has `eth0` with the address 10.9.0.N. `home`, where the switch is,
    has 10.9.0.100."""
    disable_ipv6(home)
    # With multicast snooping the switch would send packets of its own.
    home.run("ip", "link", "add", "switch", "type", "bridge", "mcast_snooping", "0")
    home.run("ip", "address", "add", "10.9.0.100/24", "dev", "switch")
    home.run("ip", "link", "set", "switch", "up")
    hosts = []
    for number, name in enumerate(names, 1):
        host = Host(name)
        disable_ipv6(host)
        join(home, f"port{number}", host, "eth0", (None, f"10.9.0.{number}/24"))
        home.run("ip", "link", "set", f"port{number}", "master", "switch")
        hosts.append(host)
    return hosts
