"""The testbed of one test or measurement: its directory, its hosts, its programs."""

import os
import shutil
import subprocess

from . import pcap, pcapng
from .host import Host, lan
from .outcome import Failed, Skipped, until
from .pcktr import Pcktr
from .program import Program


class Testbed:
    """Starts programs, and ends them when it is closed. Use it as a context manager."""

    def __init__(self, directory):
        self.directory = str(directory)
        self.home = Host("home")
        self.programs = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def path(self, name):
        """The path of a file of this test."""
        return os.path.join(self.directory, name)

    def write(self, name, data):
        """Writes a file and returns its path."""
        with open(self.path(name), "wb") as file:
            file.write(data)
        return self.path(name)

    def lan(self, *names):
        """Hosts on one switch; see [`host.lan`]."""
        return lan(self.home, names)

    def start(self, name, *argv, host=None, **options):
        """Starts any program."""
        return self._add(Program(name, host or self.home, argv, self.directory, **options))

    def pcktr(self, name, host=None, stdin=subprocess.DEVNULL, stdout=None, prefix=(), binary=None, **settings):
        """Starts the program in the mode that its settings say."""
        options = {"stdin": stdin, "stdout": stdout, "prefix": prefix, "settings": settings}
        if binary is not None:
            options["binary"] = binary
        return self._add(Pcktr(name, host or self.home, self.directory, **options))

    def capture(self, name="capture", host=None, **settings):
        """Starts a capture. Its source name is `name`."""
        return self.pcktr(name, host, mode="capture", **{"source_name": name, **settings})

    def observe(self, name="observe", host=None, **settings):
        """Starts an exporter."""
        return self.pcktr(name, host, mode="observe", **settings)

    def collect(self, name="collect", host=None, **settings):
        """Starts a collector, and waits until it listens."""
        collector = self.pcktr(name, host, mode="collect", **settings)
        collector.wait_for_log("waiting for captures")
        return collector

    def endpoint(self, address="127.0.0.1", host=None):
        """A relay endpoint that is not in use."""
        return f"tcp://{address}:{(host or self.home).free_port()}"

    def tcpdump(self, name, device, host=None, expression=""):
        """Starts `tcpdump -w`, to compare a capture with. Returns the program, which already captures, and its file."""
        self.need("tcpdump")
        path = self.path(f"{name}.pcap")
        argv = ["tcpdump", "-i", device, "--nano", "-n", "-U", "-s", "262144", "-B", "16384", "-Z", "root"]
        program = self.start(name, *argv, "-w", path, expression, host=host)
        program.wait_for_log("listening on")
        return program, path

    def need(self, *tools):
        """Skips the test if a tool is not installed."""
        for tool in tools:
            if shutil.which(tool) is None:
                raise Skipped(f"{tool} is not installed")

    def run(self, *argv, data=None):
        """Runs a tool, which must succeed, with `data` on standard input. Returns its standard output."""
        self.need(argv[0])
        done = subprocess.run(argv, input=data, capture_output=True, timeout=60)
        if done.returncode != 0:
            raise Failed(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stderr.decode()}")
        return done.stdout.decode()

    def packets(self, program):
        """All packets that a collector has written so far, in either format."""
        return self.capture_file(program).packets

    def capture_file(self, program):
        """What a collector has written so far, parsed. An incomplete last record is ignored."""
        data = program.output()
        return (pcapng if data.startswith(pcapng.MAGIC) else pcap).parse(data)

    def wait_for_packets(self, program, least, seconds=20):
        """Waits until a collector has written `least` packets or more, and returns them."""
        packets = []

        def written():
            packets[:] = self.packets(program)
            return len(packets) >= least

        until(written, lambda: f"{program.name} has written {len(packets)} packets, not {least}", seconds)
        return packets

    def relay_file(self, path, name="relay", collector=None, **settings):
        """Relays a whole file, and waits until capture and collector have exited. Returns both."""
        endpoint = self.endpoint()
        collect = self.collect(f"{name}-collect", collect_endpoint=endpoint, exit_on_end="true", **(collector or {}))
        capture = self.capture(f"{name}-capture", relay_endpoint=endpoint, read_file=path, **settings)
        capture.wait()
        collect.wait()
        return capture, collect

    def _add(self, program):
        self.programs.append(program)
        return program

    def close(self):
        """Kills what still runs. Fails if any log reports a panic, whatever the test was about."""
        for program in self.programs:
            program.close()
        for program in self.programs:
            if isinstance(program, Pcktr) and program.panicked():
                raise Failed(f"{program.name} panicked")

    def logs(self):
        """The end of every log, for the report of a failed test."""
        parts = []
        for program in self.programs:
            parts.append(f"--- {program.name}: exit code {program.exit_code}")
            parts.extend(program.log().splitlines()[-25:])
        return "\n".join(parts)
