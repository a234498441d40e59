"""System calls forced into a running process with ptrace(2): what an attacker who controls it could do.

The program has no part in it. Run as `python3 -m testkit.injection`, because the tracer must not be the process that
waits for the program's end. Needs root, and an x86-64 processor.
"""

import ctypes
import json
import os
import platform
import re
import signal
import subprocess
import sys

from .build import ROOT
from .isolation import libc
from .outcome import Failed, Skipped

# linux/ptrace.h
PTRACE_SINGLESTEP = 9
PTRACE_GETREGS = 12
PTRACE_SETREGS = 13
PTRACE_DETACH = 17
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
# linux/wait.h: threads, too.
WAIT_ALL = 0x40000000

# Bytes below the stack pointer that a function may use (System V ABI for x86-64, 3.2.2).
RED_ZONE = 128
SYSCALL_INSTRUCTION = b"\x0f\x05"

# asm/unistd_64.h
NUMBERS = {
    "mmap": 9,
    "socket": 41,
    "connect": 42,
    "sendto": 44,
    "bind": 49,
    "execve": 59,
    "fcntl": 72,
    "fchmod": 91,
    "ptrace": 101,
    "openat": 257,
    "fchmodat": 268,
}


# struct user_regs_struct, sys/user.h
REGISTERS = """r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base
    ds es fs gs"""


class Registers(ctypes.Structure):
    """The registers of a thread."""

    _fields_ = [(name, ctypes.c_ulong) for name in REGISTERS.split()]


def force(pid, name, *args):
    """Makes the first thread of a process call `name`. Returns what the kernel returns, a value or a negative error
    number; or the signal that killed the process. Arguments are numbers, texts or bytes."""
    return force_all(pid, pid, [(name, *args)])[0]


def force_all(pid, thread, calls):
    """Makes a thread of a process do these calls, one after the other. Returns the results, as [`force`] does."""
    if platform.machine() != "x86_64":
        raise Skipped("system calls can be forced on x86-64 only")
    given = [[name, [encoded(arg) for arg in args]] for name, *args in calls]
    argv = [sys.executable, "-m", __name__, json.dumps([pid, thread, given])]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=20)
    if done.returncode != 0:
        raise Failed(f"cannot force {calls}: {done.stderr}")
    return [signal.Signals(value) if kind == "killed" else value for kind, value in json.loads(done.stdout)]


def encoded(arg):
    """An argument as JSON can carry it: a number, or the bytes that a pointer leads to."""
    return list(arg.encode() + b"\0") if isinstance(arg, str) else list(arg) if isinstance(arg, bytes) else arg


def ptrace(request, thread, data=0):
    if libc.ptrace(ctypes.c_long(request), ctypes.c_long(thread), None, data) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"ptrace({request:#x}): {os.strerror(code)}")


def instruction(pid):
    """The address of an instruction in the C library that makes a system call."""
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps, open(f"/proc/{pid}/mem", "rb") as memory:
        for begin, end in re.findall(r"^(\w+)-(\w+) r-xp .*/libc[.-]", maps.read(), re.MULTILINE):
            memory.seek(int(begin, 16))
            at = memory.read(int(end, 16) - int(begin, 16)).find(SYSCALL_INSTRUCTION)
            if at >= 0:
                return int(begin, 16) + at
    raise ValueError("no system call in the C library")


def make_call(pid, thread, name, args):
    """Makes the thread, which is stopped, call `name`. Returns the kind of its end, and the result."""
    before, changed = Registers(), Registers()
    ptrace(PTRACE_GETREGS, thread, ctypes.byref(before))
    ctypes.memmove(ctypes.byref(changed), ctypes.byref(before), ctypes.sizeof(before))
    changed.rsp -= RED_ZONE
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        for register, arg in zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), args):
            if isinstance(arg, list):
                changed.rsp = (changed.rsp - len(arg)) & ~15
                memory.seek(changed.rsp)
                memory.write(bytes(arg))
                arg = changed.rsp
            setattr(changed, register, arg & (1 << 64) - 1)
    # Without a number the kernel does not restart the call in which the thread was stopped.
    changed.orig_rax = (1 << 64) - 1
    changed.rax, changed.rip = NUMBERS[name], instruction(pid)
    ptrace(PTRACE_SETREGS, thread, ctypes.byref(changed))
    ptrace(PTRACE_SINGLESTEP, thread)
    _, status = os.waitpid(thread, WAIT_ALL)
    if not os.WIFSTOPPED(status):
        return "killed", os.WTERMSIG(status)
    ptrace(PTRACE_GETREGS, thread, ctypes.byref(changed))
    # When it continues, it is in the call in which it was stopped.
    ptrace(PTRACE_SETREGS, thread, ctypes.byref(before))
    return "returned", ctypes.c_long(changed.rax).value


def main():
    pid, thread, calls = json.loads(sys.argv[1])
    libc.ptrace.restype = ctypes.c_long
    ptrace(PTRACE_SEIZE, thread)
    ptrace(PTRACE_INTERRUPT, thread)
    os.waitpid(thread, WAIT_ALL)
    results = []
    for name, args in calls:
        results.append(make_call(pid, thread, name, args))
        if results[-1][0] == "killed":
            break
    else:
        ptrace(PTRACE_DETACH, thread)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
