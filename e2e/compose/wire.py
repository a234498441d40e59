"""What the relay's connections carry, as others on the network see it."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from testkit.outcome import Skipped, until


@contextlib.contextmanager
def recorded(pid):
    """Records the relay's traffic in the network namespace of a process. Yields a function that ends the recording and
    returns its bytes."""
    if os.geteuid() != 0 or shutil.which("tcpdump") is None:
        raise Skipped("recording in a container's network needs root and tcpdump")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "wire.pcap")
        command = ["nsenter", "-t", str(pid), "-n", "tcpdump", "-Z", "root", "--immediate-mode", "-U", "-i", "any"]
        process = subprocess.Popen([*command, "-w", path, "tcp port 7386"], stderr=subprocess.DEVNULL)

        def stop():
            process.terminate()
            process.wait(30)
            return path.read_bytes()

        try:
            until(lambda: path.exists() and path.stat().st_size, "tcpdump does not start")
            yield stop
        finally:
            process.kill()
            process.wait(30)
