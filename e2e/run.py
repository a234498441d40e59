#!/usr/bin/env python3
"""The end-to-end tests: real processes, real devices, real tcpdump. See e2e/README.md."""

import argparse
import concurrent.futures
import importlib
import inspect
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

import tests  # noqa: E402
from harness import isolation, pcktr  # noqa: E402
from harness.outcome import Failed, Skipped  # noqa: E402
from harness.scene import Scene  # noqa: E402

# A test that takes longer than this hangs.
LONGEST = 60
# The exit code of a test that was skipped, as Automake has it.
SKIP = 77


def find():
    """Every test there is, by its name: `file.test`."""
    found = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(tests.__path__)):
        loaded = importlib.import_module(f"tests.{module}")
        for name, function in inspect.getmembers(loaded, inspect.isfunction):
            if name.startswith("test_") and function.__module__ == loaded.__name__:
                found[f"{module}.{name.removeprefix('test_')}"] = function
    return found


def run_here(test):
    """Runs one test in this process, and returns its exit code."""
    directory = tempfile.mkdtemp(prefix="pcktr-e2e-")
    # What runs as another user has to get in.
    os.chmod(directory, 0o755)
    scene = None
    try:
        isolation.isolate()
        scene = Scene(directory)
        try:
            test(scene)
        finally:
            scene.clear()
        return 0
    except Skipped as reason:
        print(reason)
        return SKIP
    except Exception as error:  # Whatever went wrong: the test has failed.
        if isinstance(error, Failed):
            calls = traceback.extract_tb(error.__traceback__)
            frame = next((call for call in reversed(calls) if "/tests/" in call.filename), calls[-1])
            print(f"{os.path.basename(frame.filename)}:{frame.lineno}: {error}")
        else:
            traceback.print_exc(file=sys.stdout)
        if scene is not None:
            print(scene.logs())
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def run_apart(name):
    """Runs one test in a process of its own: exit code, what it said, seconds."""
    began = time.monotonic()
    argv = [sys.executable, os.path.abspath(__file__), "--in-this-process", name]
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        said, _ = process.communicate(timeout=LONGEST)
        code = process.returncode
    except subprocess.TimeoutExpired:
        code, said = 1, f"it has not ended within {LONGEST} s".encode()
    finally:
        # Whatever it has left behind is of its session.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
    return code, said.decode(errors="replace").strip(), time.monotonic() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-k", metavar="PATTERN", default="", help="only the tests whose names contain PATTERN")
    parser.add_argument("-j", metavar="N", type=int, default=2, help="so many at a time (2)")
    parser.add_argument("--list", action="store_true", help="only print their names")
    parser.add_argument("--in-this-process", metavar="NAME", help=argparse.SUPPRESS)
    args = parser.parse_args()
    found = find()
    if args.in_this_process:
        return run_here(found[args.in_this_process])
    names = [name for name in found if args.k in name]
    if args.list:
        print("\n".join(names))
        return 0
    if not names:
        print(f"no test has `{args.k}` in its name", file=sys.stderr)
        return 2
    if not os.access(pcktr.PCKTR, os.X_OK):
        print(f"there is no {pcktr.PCKTR}: cargo build --release, or set PCKTR", file=sys.stderr)
        return 2
    counts = {0: 0, 1: 0, SKIP: 0}

    def report(name, outcome):
        code, said, seconds = outcome
        code = code if code in counts else 1
        counts[code] += 1
        word = {0: "ok  ", 1: "FAIL", SKIP: "SKIP"}[code]
        reason = f": {said}" if code == SKIP else ""
        print(f"{word} {name} ({seconds:.1f} s){reason}", flush=True)
        if code == 1:
            print("     " + said.replace("\n", "\n     "), flush=True)

    # Those that measure time, or need both cores, run when nothing else does.
    alone = [name for name in names if getattr(found[name], "alone", False)]
    with concurrent.futures.ThreadPoolExecutor(max(args.j, 1)) as pool:
        running = {pool.submit(run_apart, name): name for name in names if name not in alone}
        for done in concurrent.futures.as_completed(running):
            report(running[done], done.result())
    for name in alone:
        report(name, run_apart(name))
    print(f"{counts[0]} passed, {counts[1]} failed, {counts[SKIP]} skipped")
    return 1 if counts[1] else 0


if __name__ == "__main__":
    sys.exit(main())
