"""Programs: started, timed, charged with their CPU time, and never left behind."""

import ctypes
import dataclasses
import glob
import os
import re
import select
import signal
import subprocess
import tempfile
import threading
import time

# A program that takes longer than this hangs.
LONGEST = 180

# sys/prctl.h of Linux.
PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None)


class Failed(Exception):
    """A measurement that came to nothing."""


@dataclasses.dataclass
class Usage:
    """What a program took: seconds of CPU, user and system, with those of the children that it waited for."""

    cpu: float
    code: int


def until(condition, what, seconds=20, pause=0.01):
    """Waits until a condition holds, and returns what it gives."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {seconds} s")
        time.sleep(pause)


class Program:
    """A process of ours. It dies with this one, whatever happens."""

    def __init__(self, argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=None):
        self.argv = argv
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            argv, stdin=stdin, stdout=stdout, stderr=self.log, env=env, preexec_fn=_die_with_parent
        )
        self.usage = None

    @property
    def pid(self):
        return self.process.pid

    def wait(self, seconds=LONGEST):
        """Waits for its end, and says what it took. One that does not end is killed, and the measurement has failed."""
        if self.usage is None:
            pidfd = os.pidfd_open(self.pid)
            try:
                poll = select.poll()
                poll.register(pidfd, select.POLLIN)
                if not poll.poll(seconds * 1000):
                    self.kill()
                    raise Failed(f"{self.argv[0]} has not ended within {seconds} s:\n{self.log_text()[-2000:]}")
            finally:
                os.close(pidfd)
            self._reap()
        return self.usage

    def finish(self, seconds=LONGEST):
        """Waits for an end without an error."""
        usage = self.wait(seconds)
        if usage.code != 0:
            raise Failed(f"{' '.join(self.argv)}: exit code {usage.code}\n{self.log_text()[-2000:]}")
        return usage

    def stop(self, seconds=20):
        """Tells it to end, and says what it took."""
        if self.usage is None:
            os.kill(self.pid, signal.SIGTERM)
        return self.wait(seconds)

    def kill(self):
        """Ends it without a word."""
        if self.usage is None:
            # Not by Popen's own `kill`, which reaps what has ended, and forgets what it took.
            os.kill(self.pid, signal.SIGKILL)
            self._reap()

    def is_running(self):
        return self.usage is None and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def log_text(self):
        """What it has written to standard error. (Its position is shared with the program: read without moving it.)"""
        size = os.fstat(self.log.fileno()).st_size
        return os.pread(self.log.fileno(), size, 0).decode(errors="replace")

    def wait_for_log(self, pattern, seconds=20):
        """Waits for a line, and returns the match."""

        def found():
            match = re.search(pattern, self.log_text(), re.MULTILINE)
            if match is None and not self.is_running():
                raise Failed(f"{' '.join(self.argv)} has ended:\n{self.log_text()[-2000:]}")
            return match

        return until(found, f"/{pattern}/ from {self.argv[0]}", seconds)

    def cpu_so_far(self):
        """Seconds of CPU of its threads, to the nanosecond where the kernel keeps statistics (schedstat)."""
        total = 0
        for path in glob.glob(f"/proc/{self.pid}/task/*/schedstat"):
            try:
                with open(path, encoding="ascii") as file:
                    total += int(file.read().split()[0])
            except OSError:
                continue  # A thread that has just ended.
        return total / 1e9

    def memory(self, what="VmRSS"):
        """Resident bytes; the most there were for `VmHWM`. None when it is gone."""
        try:
            with open(f"/proc/{self.pid}/status", encoding="ascii") as file:
                match = re.search(rf"{what}:\s+(\d+) kB", file.read())
        except OSError:
            return None
        return int(match.group(1)) * 1024 if match else None

    def _reap(self):
        _, status, used = os.wait4(self.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.usage = Usage(used.ru_utime + used.ru_stime, self.process.returncode)


class Peak:
    """Watches the memory of a program as long as the block lasts. (What `wait4` says of it counts the moment before the
    program was loaded too, when it was a copy of this one.)"""

    def __init__(self, program):
        self.program, self.bytes = program, 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def _watch(self):
        while not self.over.wait(0.02):
            self.bytes = max(self.bytes, self.program.memory("VmHWM") or 0)


class Programs:
    """The programs of one measurement. Those that still run at its end are killed, each by its own id."""

    def __init__(self):
        self.started = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for program in self.started:
            program.kill()
            for stream in (program.process.stdin, program.process.stdout):
                if stream is not None:
                    try:
                        stream.close()
                    except BrokenPipeError:
                        pass
            program.log.close()

    def start(self, *argv, **options):
        return self.keep(Program([str(arg) for arg in argv], **options))

    def pipe(self, *commands, stdout=subprocess.DEVNULL):
        """Programs whose output is the next one's input."""
        before, programs = subprocess.DEVNULL, []
        for argv in commands:
            last = argv is commands[-1]
            programs.append(self.start(*argv, stdin=before, stdout=stdout if last else subprocess.PIPE))
            if before is not subprocess.DEVNULL:
                before.close()
            before = programs[-1].process.stdout
        return programs

    def keep(self, program):
        self.started.append(program)
        return program


def _die_with_parent():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
