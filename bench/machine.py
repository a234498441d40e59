"""Describes the machine and the installed programs."""

import os
import platform
import re
import shutil
import subprocess

from testkit.build import PCKTR

# How each peer prints its version.
PEERS = {
    "socat": ["socat", "-V"],
    "nc": ["nc", "-h"],
    "tcpdump": ["tcpdump", "--version"],
    "mergecap": ["mergecap", "--version"],
    "tzsp2pcap": ["tzsp2pcap", "-h"],
}


def missing(*tools):
    """Those of these tools that are not installed."""
    return [tool for tool in tools if shutil.which(tool) is None]


def describe():
    """Lines of Markdown about the machine, the program and its peers."""
    model = "unknown processor"
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        found = re.search(r"model name\s*:\s*(.+)", file.read())
        model = found.group(1) if found else platform.machine()
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(re.search(r"MemTotal:\s+(\d+) kB", file.read()).group(1)) / (1 << 20)
    yield f"{model}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, Linux {platform.release()}"
    yield f"pcktr: {version([PCKTR, '--version'], every=True)}"
    for name, argv in PEERS.items():
        yield f"{name}: {'not installed' if missing(name) else version(argv)}"
    load = os.getloadavg()[0]
    if load > 0.5:
        yield f"**busy**: load average {load:.1f} at the start"


def version(argv, every=False):
    """The first line of a program's output that looks like a version; with `every`, all of them."""
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=10, check=False)
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    lines = [line for line in lines if re.search(r"\d", line) or "BSD" in line] or lines or ["?"]
    return ", ".join(lines) if every else lines[0]
