"""Hosts for live traffic: one that sends, and one that captures and collects, connected by veth pairs."""

import subprocess
import sys

from bench.measurement import TIMEOUT, Measurement
from testkit.build import ROOT
from testkit.host import Host, disable_ipv6, join
from testkit.outcome import Failed

# The capturing host's device with traffic, and the one without.
BUSY, IDLE = "busy0", "idle0"
# The sending host's ends of the two veth pairs.
BUSY_PEER, IDLE_PEER = "out0", "out1"

# The default BUFFER_SIZE of a capture. tcpdump takes KiB.
BUFFER_KIB = 16 << 10

# Nothing else runs on the capturing host, so the port is free.
ENDPOINT = "tcp://127.0.0.1:7386"


class LiveHosts(Measurement):
    """A measurement with two hosts."""

    def __init__(self, work):
        super().__init__(work)
        self.sender, self.capturer = Host("sender"), Host("capturer")
        for host in (self.sender, self.capturer):
            disable_ipv6(host)
        join(self.sender, BUSY_PEER, self.capturer, BUSY)
        join(self.sender, IDLE_PEER, self.capturer, IDLE)

    def close(self):
        super().close()
        self.sender.close()
        self.capturer.close()

    def start_collector(self, **settings):
        return self.collect(host=self.capturer, collect_endpoint=ENDPOINT, **settings)

    def start_capture(self, device=BUSY, name="capture", **settings):
        """Starts a capture, and waits until it is connected to the collector."""
        return self.capture(name, self.capturer, relay_endpoint=ENDPOINT, device=device, **settings).connected()

    def send(self, rate, seconds, size="small"):
        """Starts to send packets to the capturing host. See [`sent`]."""
        argv = [sys.executable, "-m", "bench.sender", BUSY_PEER, rate, seconds, size]
        return self.start("sender", *argv, host=self.sender, stdout=subprocess.PIPE, cwd=ROOT)


def sent(program):
    """Waits for a sender's end. Returns the number of packets and the rate."""
    program.wait(seconds=TIMEOUT)
    count, seconds = program.stdout.read().split()
    return int(count), int(count) / float(seconds)


def check_rate(rate, wanted):
    """Fails if the sender was too slow for a valid measurement."""
    if rate < 0.9 * wanted:
        raise Failed(f"the sender reached {rate:.0f} packets/s, not {wanted}: the machine is busy")
