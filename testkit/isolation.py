"""Isolation: a process gets its own network namespace and mount namespace.

Hosts, devices, addresses and ports that it makes disappear with its last process.
"""

import ctypes
import os
import signal
import subprocess

from .outcome import Skipped

# sched.h, sys/mount.h and sys/prctl.h of Linux.
CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_BIND = 1 << 12
MS_REC = 1 << 14
MS_PRIVATE = 1 << 18
PR_SET_PDEATHSIG = 1

NETNS = "/run/netns"

libc = ctypes.CDLL(None, use_errno=True)


def syscall(name, *args):
    """Calls a function of the C library. Raises OSError if it fails."""
    if getattr(libc, name)(*args) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def mount(source, target, kind, flags=0):
    syscall("mount", source.encode(), target.encode(), kind.encode() if kind else None, flags, None)


def isolate():
    """Moves this process, which must be single-threaded, to new namespaces. The only device there is `lo`."""
    if os.geteuid() != 0:
        raise Skipped("network namespaces need root")
    try:
        syscall("unshare", CLONE_NEWNET | CLONE_NEWNS)
        mount("none", "/", None, MS_REC | MS_PRIVATE)
        # sysfs shows the devices of the network namespace in which it was mounted.
        mount("sysfs", "/sys", "sysfs")
        # `ip netns` keeps its names here. This mount hides ours from the rest of the machine.
        os.makedirs(NETNS, exist_ok=True)
        mount("tmpfs", NETNS, "tmpfs")
    except OSError as error:
        raise Skipped(f"network namespaces are not permitted here ({error})") from error
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def replace_file(path, replacement):
    """Makes `path` show the file `replacement` to this process and its children."""
    mount(replacement, path, None, MS_BIND)


def die_with_parent():
    """Has the kernel kill this process when the thread that started it ends."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
