"""A place for each test where it disturbs nobody: its own network and its own mounts.

All that a test makes there (hosts, devices, addresses, ports in use) is gone with its last process, however it ends.
"""

import ctypes
import os
import subprocess

from .outcome import Skipped

# sched.h and sys/mount.h of Linux.
CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_BIND = 1 << 12
MS_REC = 1 << 14
MS_PRIVATE = 1 << 18

NETNS = "/run/netns"

libc = ctypes.CDLL(None, use_errno=True)


def call(name, *args):
    """A system call that fails with an OSError."""
    if getattr(libc, name)(*args) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def mount(source, target, kind, flags=0):
    call("mount", source.encode(), target.encode(), kind.encode() if kind else None, flags, None)


def isolate():
    """Moves this process, which must have one thread, to an empty network of its own. Its only device is `lo`."""
    if os.geteuid() != 0:
        raise Skipped("it takes root to make network namespaces")
    try:
        call("unshare", CLONE_NEWNET | CLONE_NEWNS)
        mount("none", "/", None, MS_REC | MS_PRIVATE)
        # sysfs shows the devices of the network in which it was mounted.
        mount("sysfs", "/sys", "sysfs")
        # `ip netns` keeps its names here: ours are seen by us alone.
        os.makedirs(NETNS, exist_ok=True)
        mount("tmpfs", NETNS, "tmpfs")
    except OSError as error:
        raise Skipped(f"this machine forbids network namespaces ({error})") from error
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def replace_file(path, replacement):
    """For this test and what it starts, `path` is `replacement`."""
    mount(replacement, path, None, MS_BIND)
