"""Programs: started, watched through their log, stopped, and measured."""

import contextlib
import glob
import os
import re
import select
import signal
import subprocess
from typing import NamedTuple

from .isolation import die_with_parent
from .outcome import Failed, check, equal, until


class Usage(NamedTuple):
    """What a program used in its lifetime: seconds of CPU, user and system, including children that it waited for."""

    cpu: float


class Program:
    """A process. Its standard error goes to a log file; its standard output too unless `stdout` says otherwise.

    It is killed when the process that started it ends.
    """

    def __init__(self, name, host, argv, directory, stdin=subprocess.DEVNULL, stdout=None, env=None, cwd=None):
        self.name, self.host = name, host
        self.argv = [str(arg) for arg in argv]
        self.usage = None
        self.log_path = os.path.join(directory, f"{name}.log")
        self.stdout_path = os.path.join(directory, f"{name}.out")
        with open(self.log_path, "ab") as log, open(self.stdout_path, "wb") as out:
            self.process = subprocess.Popen(
                host.command(self.argv),
                stdin=stdin,
                stdout=out if stdout is None else stdout,
                stderr=log,
                env=env,
                cwd=cwd,
                preexec_fn=die_with_parent,
            )

    @property
    def pid(self):
        return self.process.pid

    @property
    def stdin(self):
        return self.process.stdin

    @property
    def stdout(self):
        return self.process.stdout

    @property
    def exit_code(self):
        """None until its end has been waited for."""
        return self.process.returncode

    def is_running(self):
        return self.usage is None and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def wait(self, code=0, seconds=20):
        """Waits for its end and checks the exit code, unless `code` is None. Returns its resource usage."""
        if self.usage is None:
            pidfd = os.pidfd_open(self.pid)
            try:
                poll = select.poll()
                poll.register(pidfd, select.POLLIN)
                if not poll.poll(seconds * 1000):
                    raise Failed(f"{self.name} did not exit within {seconds:g} s{self.log_tail()}")
            finally:
                os.close(pidfd)
            self._reap()
        if code is not None:
            equal(self.exit_code, code, f"exit code of {self.name}")
        return self.usage

    def stop(self, code=0, seconds=20, by=signal.SIGTERM):
        """Sends it a signal, waits for its end, and checks the exit code. Returns its resource usage."""
        check(self.is_running(), f"{self.name} has already exited{self.log_tail()}")
        self.send_signal(by)
        return self.wait(code, seconds)

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        """Ends it with SIGKILL if it still runs."""
        if self.usage is None:
            # Popen.kill would reap a process that has ended, and lose its resource usage.
            self.send_signal(signal.SIGKILL)
            self._reap()

    def close(self):
        """Kills it if it still runs, and closes its pipes."""
        self.kill()
        for stream in (self.stdin, self.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _reap(self):
        _, status, used = os.wait4(self.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.usage = Usage(used.ru_utime + used.ru_stime)

    def output(self):
        """What it has written to standard output so far."""
        with open(self.stdout_path, "rb") as out:
            return out.read()

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def log_tail(self, lines=5):
        """The end of its log, to be appended to a message."""
        return "".join(f"\n  {line}" for line in self.log().splitlines()[-lines:])

    def log_lines(self, pattern):
        return [line for line in self.log().splitlines() if re.search(pattern, line)]

    def wait_for_log(self, pattern, seconds=10):
        """Waits for a log line that matches, and returns the match."""

        def find():
            running = self.is_running()
            match = re.search(pattern, self.log(), re.MULTILINE)
            if match is None and not running:
                raise Failed(f"{self.name} exited without /{pattern}/ in its log{self.log_tail()}")
            return match

        return until(find, lambda: f"no /{pattern}/ in the log of {self.name}{self.log_tail()}", seconds)

    def cpu_so_far(self):
        """Seconds of CPU that its threads have used, with the kernel's best resolution (schedstat)."""
        total = 0
        for path in glob.glob(f"/proc/{self.pid}/task/*/schedstat"):
            try:
                with open(path, encoding="ascii") as file:
                    total += int(file.read().split()[0])
            except OSError:
                continue  # The thread has just ended.
        return total / 1e9

    def bytes_read(self):
        """Bytes that it has read from files, pipes and sockets."""
        # proc(5), /proc/pid/io
        with open(f"/proc/{self.pid}/io", encoding="ascii") as file:
            return int(re.search(r"^rchar: (\d+)$", file.read(), re.MULTILINE).group(1))

    def memory(self):
        """Resident bytes; 0 if it has ended."""
        return self._memory("VmRSS")

    def memory_peak(self):
        """The peak of its resident bytes; 0 if it has ended."""
        return self._memory("VmHWM")

    def _memory(self, field):
        # proc(5), /proc/pid/status
        try:
            with open(f"/proc/{self.pid}/status", encoding="ascii") as file:
                match = re.search(rf"{field}:\s+(\d+) kB", file.read())
        except OSError:
            return 0
        return int(match.group(1)) * 1024 if match else 0
