"""The scene of one test: its folder, its hosts, its programs."""

import os
import shutil
import subprocess

from . import pcap, pcapng
from .host import Host, lan
from .outcome import Failed, Skipped, until
from .pcktr import Pcktr, panics
from .program import Program


class Scene:
    """Made before a test and cleared after it."""

    def __init__(self, directory):
        self.directory = directory
        self.home = Host("home")
        self.programs = []

    def path(self, name):
        """A file of this test."""
        return os.path.join(self.directory, name)

    def write(self, name, data):
        """A file with this content, and its path."""
        with open(self.path(name), "wb") as file:
            file.write(data)
        return self.path(name)

    def lan(self, *names):
        """Hosts on one switch; see [`lan`]."""
        return lan(self.home, names)

    def start(self, name, *argv, host=None, **options):
        """Any other program."""
        return self._keep(Program(name, host or self.home, argv, self.directory, **options))

    def pcktr(self, name, host=None, **options):
        """The program in whatever mode its settings say."""
        return self._keep(Pcktr(name, host or self.home, self.directory, **options))

    def capture(self, name="capture", host=None, **settings):
        """A capture, called at the collector what it is called here."""
        return self.pcktr(name, host, mode="capture", **{"source_name": name, **settings})

    def observe(self, name="observe", host=None, **settings):
        """An exporter."""
        return self.pcktr(name, host, mode="observe", **settings)

    def collect(self, name="collect", host=None, **settings):
        """A collector that listens already."""
        return self.pcktr(name, host, mode="collect", **settings).ready()

    def endpoint(self, address="127.0.0.1", host=None):
        """An endpoint of the relay that nobody uses yet."""
        return f"tcp://{address}:{(host or self.home).free_port()}"

    def tcpdump(self, name, device, host=None, expression=""):
        """`tcpdump -w` beside a capture: the judge of what there was to be captured. It listens already."""
        self.need("tcpdump")
        path = self.path(f"{name}.pcap")
        argv = ["tcpdump", "-i", device, "--nano", "-n", "-U", "-s", "262144", "-B", "16384", "-Z", "root"]
        program = self.start(name, *argv, "-w", path, expression, host=host)
        program.wait_for_log("listening on")
        return program, path

    def need(self, *tools):
        """Skips the test where a tool is missing."""
        for tool in tools:
            if shutil.which(tool) is None:
                raise Skipped(f"{tool} is not installed")

    def run(self, *argv, data=None):
        """What a tool prints, given `data` on standard input. It must succeed."""
        self.need(argv[0])
        done = subprocess.run(argv, input=data, capture_output=True, timeout=60)
        if done.returncode != 0:
            raise Failed(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stderr.decode()}")
        return done.stdout.decode()

    def packets(self, program):
        """All packets that a collector has written, whatever the format; the last one may still be on its way."""
        return self.capture_file(program).packets

    def capture_file(self, program):
        """What a collector has written, parsed to its last byte but for a record that is not whole yet."""
        data = program.output()
        return (pcapng if data.startswith(pcapng.MAGIC) else pcap).parse(data)

    def wait_for_packets(self, program, least, seconds=20):
        """Waits until a collector has written so many packets, and returns them."""
        found = [[]]

        def there():
            found[0] = self.packets(program)
            return len(found[0]) >= least

        until(there, lambda: f"{len(found[0])} packets come out of {program.name}, not {least}", seconds)
        return found[0]

    def relay_file(self, path, name="relay", stdin=None, collector=None, **settings):
        """Relays a file from its first packet to its last; both ends end by themselves. Returns the two programs."""
        endpoint = self.endpoint()
        collect = self.collect(f"{name}-collect", collect_endpoint=endpoint, exit_on_end="true", **(collector or {}))
        capture = self.capture(f"{name}-capture", relay_endpoint=endpoint, read_file=path, stdin=stdin, **settings)
        capture.wait()
        collect.wait()
        return capture, collect

    def _keep(self, program):
        self.programs.append(program)
        return program

    def clear(self):
        """Ends what still runs. A panic anywhere fails the test, whatever else it found."""
        for program in self.programs:
            if program.process.poll() is None:
                program.process.kill()
            program.process.wait()
            for stream in (program.stdin, program.stdout):
                if stream is not None and not stream.closed:
                    try:
                        stream.close()
                    except BrokenPipeError:
                        pass
        for program in self.programs:
            if isinstance(program, Pcktr) and panics(program.log()):
                raise Failed(f"{program.name} panicked")

    def logs(self):
        """The end of every log, for who wants to know why a test failed."""
        parts = []
        for program in self.programs:
            parts.append(f"--- {program.name}: exit code {program.process.returncode}")
            parts.extend(program.log().splitlines()[-25:])
        return "\n".join(parts)
