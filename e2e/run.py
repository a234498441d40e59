"""The end-to-end tests with real processes, devices and tools. Run as `python3 -m e2e.run`; see e2e/README.md."""

import argparse
import concurrent.futures
import contextlib
import importlib
import inspect
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

from e2e import tests
from testkit import build, isolation
from testkit.outcome import Failed, Skipped
from testkit.report import Report
from testkit.testbed import Testbed

# A test that takes longer than this many seconds is considered to hang.
TIMEOUT = 60
# The exit code of a skipped test, as in Automake.
SKIP = 77


def find_tests():
    """All tests by name, `file.test`."""
    found = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(tests.__path__)):
        loaded = importlib.import_module(f"{tests.__name__}.{module}")
        for name, function in inspect.getmembers(loaded, inspect.isfunction):
            if name.startswith("test_") and function.__module__ == loaded.__name__:
                found[f"{module}.{name.removeprefix('test_')}"] = function
    return found


def run_in_this_process(test):
    """Runs one test in this process and returns its exit code."""
    with tempfile.TemporaryDirectory(prefix="pcktr-e2e-") as directory:
        # Programs that run as another user need access too.
        os.chmod(directory, 0o755)
        testbed = None
        try:
            isolation.isolate()
            with Testbed(directory) as testbed:
                test(testbed)
        except Skipped as reason:
            print(reason)
            return SKIP
        except Exception as error:
            print(f"{place_of(error)}: {error}" if isinstance(error, Failed) else traceback.format_exc())
            if testbed is not None:
                print(testbed.logs())
            return 1
    return 0


def place_of(error):
    """The file and line of the test at which it failed."""
    calls = traceback.extract_tb(error.__traceback__)
    frame = next((call for call in reversed(calls) if "/tests/" in call.filename), calls[-1])
    return f"{os.path.basename(frame.filename)}:{frame.lineno}"


def run_in_child(name):
    """Runs one test in a child process. Returns exit code, output, and seconds."""
    began = time.monotonic()
    argv = [sys.executable, "-m", "e2e.run", "--in-this-process", name]
    process = subprocess.Popen(
        argv,
        cwd=build.ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=TIMEOUT)
        code = process.returncode
    except subprocess.TimeoutExpired:
        code, output = 1, f"did not finish within {TIMEOUT} s".encode()
    finally:
        # Everything that it has left running is in its session.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return code, output.decode(errors="replace").strip(), time.monotonic() - began


def main():
    parser = argparse.ArgumentParser(prog="python3 -m e2e.run", description=__doc__)
    parser.add_argument("-k", metavar="PATTERN", default="", help="run the tests whose names contain PATTERN")
    parser.add_argument("-j", metavar="N", type=int, default=2, help="run N tests at a time (default: 2)")
    parser.add_argument("--list", action="store_true", help="print the names of the tests and exit")
    parser.add_argument("--in-this-process", metavar="NAME", help=argparse.SUPPRESS)
    args = parser.parse_args()
    found = find_tests()
    if args.in_this_process:
        return run_in_this_process(found[args.in_this_process])
    names = [name for name in found if args.k in name]
    if args.list:
        print("\n".join(names))
        return 0
    if not names:
        print(f"no test matches `{args.k}`", file=sys.stderr)
        return 2
    if not build.is_built():
        print(build.MISSING, file=sys.stderr)
        return 2
    report = Report()

    def add(name, outcome):
        code, output, seconds = outcome
        if code == 0:
            report.passed(name, seconds)
        elif code == SKIP:
            report.skipped(name, output)
        else:
            report.failed(name, output, seconds)

    # Tests that measure time run alone.
    alone = [name for name in names if getattr(found[name], "alone", False)]
    with concurrent.futures.ThreadPoolExecutor(max(args.j, 1)) as pool:
        running = {pool.submit(run_in_child, name): name for name in names if name not in alone}
        for done in concurrent.futures.as_completed(running):
            add(running[done], done.result())
    for name in alone:
        add(name, run_in_child(name))
    return report.close()


if __name__ == "__main__":
    sys.exit(main())
