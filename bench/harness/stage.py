"""The stage for live traffic: a host that sends, a host that captures and collects, and the cable between them."""

import subprocess
import sys

from . import pcktr, sender
from .network import Host
from .process import Failed

# Where packets arrive, and where none ever do.
BUSY, IDLE = "busy0", "idle0"

# A kernel's buffer as large as that of a capture by default; tcpdump wants KiB.
BUFFER_KIB = 16 << 10


class Stage:
    """Made of the programs of one measurement, and gone with them."""

    def __init__(self, bench, programs):
        self.bench, self.programs = bench, programs
        self.far, self.near = Host(programs), Host(programs)
        self.far.join("out0", self.near, BUSY)
        self.far.join("out1", self.near, IDLE)
        # The two hosts have loopback devices of their own: what is free there is not known here, but nothing is used.
        self.endpoint = "tcp://127.0.0.1:7386"

    def collect(self, **settings):
        return pcktr.collect(self.programs, self.bench.place, self.endpoint, prefix=self.near.prefix, **settings)

    def capture(self, device=BUSY, **settings):
        """A capture that is at work, and has found its collector."""
        program = pcktr.capture(
            self.programs, self.bench.place, self.endpoint, prefix=self.near.prefix, device=device, **settings
        )
        program.wait_for_log("connected to the collector")
        return program

    def send(self, rate, seconds, size="small"):
        """Sends to the capturing host; how many packets, one finds out with [`sent`]."""
        argv = [sys.executable, sender.__file__, "out0", rate, seconds, size]
        return self.programs.start(*self.far.prefix, *argv, stdout=subprocess.PIPE)


def sent(program):
    """How many packets a sender has sent, and how many a second."""
    program.finish()
    count, seconds = program.process.stdout.read().split()
    return int(count), int(count) / float(seconds)


def at_rate(rate, wanted):
    """Fails where a sender was so slow that the figures mean something else."""
    if rate < 0.9 * wanted:
        raise Failed(f"the sender came to {rate:.0f} packets a second, not {wanted}: the machine is busy")
