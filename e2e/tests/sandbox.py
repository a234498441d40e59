"""SANDBOX and RUN_AS_USER, seen from outside: what the kernel says about each thread, what calls fail when they are
forced into the program, and what works all the same."""

import contextlib
import errno
import fcntl
import os
import pwd
import re
import shutil
import signal
import socket
import struct
import sys
import threading

from testkit import isolation
from testkit.build import PCKTR
from testkit.injection import force, force_all
from testkit.outcome import Failed, check, equal, until

# fcntl.h, sys/mman.h
AT_FDCWD = -100
MAP_PRIVATE_ANONYMOUS = 0x22
# capabilities(7)
CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
MECHANISMS = ("no_new_privs", "capabilities", "landlock_files", "landlock_tcp", "landlock_scope", "seccomp")
NOBODY = "65534:65534"


def threads(program):
    return [int(name) for name in os.listdir(f"/proc/{program.pid}/task")]


def status(program, thread):
    """/proc/pid/task/tid/status as a dictionary."""
    with open(f"/proc/{program.pid}/task/{thread}/status", encoding="utf-8") as file:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}


def three_modes(testbed, **settings):
    """A capture that is connected to a collector, and an exporter, with all the threads that they ever have."""
    endpoint = testbed.endpoint("localhost")
    collect = testbed.collect(collect_endpoint=endpoint, **settings)
    capture = testbed.capture(relay_endpoint=endpoint, **settings).ready().connected()
    observe = testbed.observe(**settings).ready()
    collect.ready()
    return capture, collect, observe


def is_confined(program, uid="0"):
    """Fails unless each thread of a program is confined."""
    for thread in threads(program):
        found = status(program, thread)
        name = f"{program.name}, thread {found['Name']}"
        for capabilities in CAPABILITY_SETS:
            equal(int(found[capabilities], 16), 0, f"{capabilities} of {name}")
        equal((found["NoNewPrivs"], found["Seccomp"]), ("1", "2"), f"NoNewPrivs and Seccomp of {name}")
        equal(found["Uid"].split(), [uid] * 4, f"user IDs of {name}")


def test_every_thread_is_confined(testbed):
    """In each mode, every thread has no capabilities, `no_new_privs` and a seccomp filter. The metrics say so."""
    for program in three_modes(testbed):
        check(len(threads(program)) > 3, f"{program.name} has only the threads {threads(program)}")
        is_confined(program)
        metrics = program.metrics()
        for mechanism in MECHANISMS:
            active = metrics.one("packeteur_sandbox_mechanism_active", mechanism=mechanism)
            equal(active, 1, f"{mechanism} of {program.name}")
        equal(program.log_lines("WARN"), [], "warnings")
        program.stop()


def test_off(testbed):
    """With SANDBOX=off the program keeps what it has, and the metrics say so."""
    for program in three_modes(testbed, sandbox="off"):
        for thread in threads(program):
            found = status(program, thread)
            check(int(found["CapEff"], 16) != 0, f"no capabilities: {found['CapEff']}")
            equal((found["NoNewPrivs"], found["Seccomp"]), ("0", "0"), "NoNewPrivs and Seccomp")
        equal(program.metrics().sum("packeteur_sandbox_mechanism_active"), 0, "active mechanisms")
        program.stop()


def attack(program, victim):
    """Forces calls that the program never makes into each of its threads. `victim` is a file that it does not use.
    Returns their names and results."""
    results = []
    for thread in threads(program):
        calls = {
            "read /etc/shadow": ("openat", AT_FDCWD, "/etc/shadow", os.O_RDONLY),
            "write a file": ("openat", AT_FDCWD, f"/tmp/planted-{thread}", os.O_WRONLY | os.O_CREAT, 0o600),
            "open a packet socket": ("socket", socket.AF_PACKET, socket.SOCK_RAW, 0),
            "open a raw socket": ("socket", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
            "make a file setuid": ("fchmodat", AT_FDCWD, victim, 0o4755),
            "change the mode of an open file": ("fchmod", 2, 0o600),
            "have signals sent": ("fcntl", 2, fcntl.F_SETOWN, 1),
            "map writable code": ("mmap", 0, 4096, 7, MAP_PRIVATE_ANONYMOUS, -1, 0),
        }
        for name, result in zip(calls, force_all(program.pid, thread, calls.values())):
            results.append((name, -result if -4096 < result < 0 else 0))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"/tmp/planted-{thread}")
    return results


def test_forced_calls_fail(testbed):
    """Calls that are forced into any thread of a program that runs as root fail: /etc/shadow cannot be read, no file
    be created elsewhere, no file's mode be changed, no packet socket be opened, no code be made. Without the sandbox
    they succeed."""
    check(os.path.exists("/etc/shadow"), "this host has no /etc/shadow")
    victim = testbed.write("victim", b"")
    expected = {
        "read /etc/shadow": errno.EACCES,
        "write a file": errno.EACCES,
        "open a packet socket": errno.ENOSYS,
        "open a raw socket": errno.ENOSYS,
        "make a file setuid": errno.ENOSYS,
        "change the mode of an open file": errno.ENOSYS,
        "have signals sent": errno.ENOSYS,
        "map writable code": errno.ENOSYS,
    }
    for program in three_modes(testbed):
        for name, result in attack(program, victim):
            equal(result, expected[name], f"error number of {program.name} for: {name}")
        # It goes on as before.
        check(program.metrics().sum("packeteur_build_info") == 1, "no metrics")
        program.stop()
    for program in three_modes(testbed, sandbox="off"):
        for name, result in attack(program, victim):
            equal(result, 0, f"error number of {program.name} without the sandbox for: {name}")
        program.stop()


def test_forced_program_kills(testbed):
    """A process that is made to start a program, or to trace another one, is killed. Without the sandbox it is not."""
    for call in (("execve", "/nonexistent", 0, 0), ("ptrace", 0, 0, 0, 0)):
        observe = testbed.observe(f"{call[0]}-on").ready()
        equal(force(observe.pid, *call), signal.SIGSYS, f"{call[0]} in the sandbox")
        observe.wait(code=-signal.SIGSYS)
    observe = testbed.observe("off", sandbox="off").ready()
    equal(force(observe.pid, "execve", "/nonexistent", 0, 0), -errno.ENOENT, "execve without the sandbox")
    observe.stop()


def internet_address(port):
    """struct sockaddr_in of a port of this host."""
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + bytes([127, 0, 0, 1]) + bytes(8)


def test_only_the_collector_is_reachable(testbed):
    """A capture can connect to its collector's port and to no other TCP port, also not by sending (TCP Fast Open).
    Without the sandbox it can."""
    endpoint = testbed.endpoint()
    collect = testbed.collect(collect_endpoint=endpoint)
    capture = testbed.capture(relay_endpoint=endpoint).ready().connected()
    with socket.create_server(("127.0.0.1", 0)) as other:
        for port, expected in ((int(endpoint.rpartition(":")[2]), 0), (other.getsockname()[1], -errno.EACCES)):
            connection = force(capture.pid, "socket", socket.AF_INET, socket.SOCK_STREAM, 0)
            check(connection >= 0, f"no socket: {connection}")
            address = internet_address(port)
            equal(force(capture.pid, "connect", connection, address, len(address)), expected, f"connecting to {port}")
        # MPTCP would evade landlock's rules about TCP.
        multipath = force(capture.pid, "socket", socket.AF_INET, socket.SOCK_STREAM, 262)
        equal(multipath, -errno.ENOSYS, "an MPTCP socket")
        free = testbed.capture("off", relay_endpoint=endpoint, sandbox="off").ready().connected()
        address = internet_address(other.getsockname()[1])
        for program, expected in ((capture, -errno.ENOSYS), (free, 1)):
            connection = force(program.pid, "socket", socket.AF_INET, socket.SOCK_STREAM, 0)
            sent = force(program.pid, "sendto", connection, "x", 1, socket.MSG_FASTOPEN, address, len(address))
            equal(sent, expected, f"bytes that {program.name} sent to another port")
    free.stop()
    capture.stop()
    collect.stop()


def packet_socket(program):
    """A file descriptor of a program's packet sockets."""
    with open(f"/proc/{program.pid}/net/packet", encoding="utf-8") as file:
        inodes = {line.split()[-1] for line in file}
    for fd in os.listdir(f"/proc/{program.pid}/fd"):
        found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(f"/proc/{program.pid}/fd/{fd}"))
        if found and found[1] in inodes:
            return int(fd)
    raise Failed(f"{program.name} has no packet socket")


def test_sockets_of_a_program_that_resolves_names(testbed):
    """As root, a program that may resolve names can connect to no Unix domain socket, as a container engine's is. As
    another user it can: daemons that resolve names have such sockets. A packet socket cannot be bound to another
    device. Without the sandbox it can."""
    # linux/if_packet.h: struct sockaddr_ll for all protocols, and all devices.
    everything = struct.pack("=HHiHBB8s", socket.AF_PACKET, socket.htons(3), 0, 0, 0, 0, b"")
    for name, settings, expected, bound in (
        ("root", {}, -errno.ENOSYS, -errno.ENOSYS),
        ("user", {"run_as_user": NOBODY, "metrics_file": None}, 0, -errno.ENOSYS),
        ("off", {"sandbox": "off"}, 0, 0),
    ):
        observe = testbed.observe(name, filter="icmp", **settings).ready()
        opened = force(observe.pid, "socket", socket.AF_UNIX, socket.SOCK_STREAM, 0)
        equal(min(opened, 0), expected, f"a Unix domain socket as {name}")
        result = force(observe.pid, "bind", packet_socket(observe), everything, len(everything))
        equal(result, bound, f"binding a packet socket as {name}")
        observe.stop()


def test_missing_landlock_is_reported_once(testbed):
    """Where the kernel or the container has no landlock, the program runs without it. One log line says so, and the
    metrics do."""
    observe = testbed.observe(prefix=(sys.executable, "-c", WITHOUT_LANDLOCK)).ready()
    warnings = observe.log_lines("WARN")
    equal(len(warnings), 1, f"warnings: {warnings}")
    for part in (
        'missing="landlock_files,landlock_tcp,landlock_scope"',
        "it can open every file that its user may open",
    ):
        check(part in warnings[0], f"`{part}` is not in: {warnings[0]}")
    metrics = observe.metrics()
    for mechanism in MECHANISMS:
        active = metrics.one("packeteur_sandbox_mechanism_active", mechanism=mechanism)
        equal(active, 0 if mechanism.startswith("landlock") else 1, mechanism)
    observe.stop()


# Has landlock_create_ruleset(2), which has the same number on all processors, fail as on a kernel without it, and
# executes the rest of the command line. linux/filter.h, linux/seccomp.h, linux/prctl.h.
WITHOUT_LANDLOCK = """
import ctypes, os, struct, sys
LOAD, EQUAL, RETURN, ALLOW, ERRNO, ENOSYS = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050000, 38
code = b"".join(struct.pack("=HBBI", *line) for line in (
    (LOAD, 0, 0, 0), (EQUAL, 0, 1, 444), (RETURN, 0, 0, ERRNO | ENOSYS), (RETURN, 0, 0, ALLOW)))
text = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack("@HP", 4, ctypes.addressof(text)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execvp(sys.argv[1], sys.argv[1:])
"""


def replace_etc(testbed, **files):
    """Replaces /etc by a directory with what name resolution and the user database need, and `files`. Returns it."""
    directory = testbed.path("etc")
    os.mkdir(directory, 0o755)
    for name in ("passwd", "group", "ld.so.cache"):
        if os.path.exists(f"/etc/{name}"):
            shutil.copy(f"/etc/{name}", directory)
    everything = {"nsswitch.conf": "hosts: files dns\n", "hosts": "", "shadow": "secret\n", **files}
    for name, text in everything.items():
        with open(os.path.join(directory, name), "w", encoding="ascii") as file:
            file.write(text)
    isolation.replace_file("/etc", directory)
    return directory


@contextlib.contextmanager
def name_server(address):
    """A name server at port 53 of `address`. The IPv4 address of each name is 127.0.0.1; there is no other."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))

        def answer():
            while True:
                query, client = server.recvfrom(512)
                if not query:
                    return
                # RFC 1035, section 4: header, one question, and for type A (1) one answer that points to its name.
                end = query.index(b"\0", 12) + 5
                found = query[end - 4 : end - 2] == b"\0\1"
                reply = query[:2] + struct.pack("!HHHHH", 0x8180, 1, int(found), 0, 0) + query[12:end]
                if found:
                    reply += struct.pack("!HHHIH", 0xC00C, 1, 1, 0, 4) + bytes([127, 0, 0, 1])
                server.sendto(reply, client)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"", (address, 53))
            thread.join()


def test_names_are_resolved_later(testbed):
    """A capture resolves its collector's name in the sandbox, from a changed /etc/hosts."""
    etc = replace_etc(testbed)
    port = testbed.home.free_port()
    capture = testbed.capture(relay_endpoint=f"tcp://relay.test:{port}").ready()
    capture.wait_for_log("cannot resolve the collector's name")
    collect = testbed.collect(collect_endpoint=f"tcp://127.0.0.1:{port}")
    with open(os.path.join(etc, "hosts"), "w", encoding="ascii") as hosts:
        hosts.write("127.0.0.1 relay.test\n")
    capture.connected()
    is_confined(capture)
    capture.stop()
    collect.stop()


def test_names_in_filters(testbed):
    """A filter with a host name compiles in the sandbox, where the relay's addresses are added to it."""
    replace_etc(testbed, hosts="127.0.0.9 pinged.test\n")
    endpoint = testbed.endpoint()
    collect = testbed.collect(collect_endpoint=endpoint)
    capture = testbed.capture(relay_endpoint=endpoint, filter="icmp and host pinged.test").ready().connected()
    for address in ("127.0.0.1", "127.0.0.9"):
        testbed.home.run("ping", "-q", "-c", "2", "-i", "0.02", address)
    equal(len(testbed.wait_for_packets(collect, 4)), 4, "packets")
    capture.stop()
    collect.stop()


def test_name_servers_are_replaced(testbed):
    """A name server that is written to /etc/resolv.conf later is asked. The file may be replaced by another one where
    it is a link to another directory, and for an unprivileged user also in /etc itself."""
    for name, user in (("link", None), ("file", NOBODY)):
        etc = replace_etc(testbed) if name == "link" else "/etc"
        directory = testbed.path("resolve") if name == "link" else etc
        os.makedirs(directory, exist_ok=True)
        target = os.path.join(directory, "resolv.conf")
        with open(target, "w", encoding="ascii") as file:
            file.write("nameserver 127.0.0.2\n")
        if name == "link":
            os.symlink(target, "/etc/resolv.conf")
        port = testbed.home.free_port()
        capture = testbed.capture(
            name, relay_endpoint=f"tcp://relay.test:{port}", run_as_user=user, metrics_file=None
        ).ready()
        capture.wait_for_log("cannot resolve the collector's name")
        collect = testbed.collect(f"collect-{name}", collect_endpoint=f"tcp://127.0.0.1:{port}")
        with open(f"{target}.new", "w", encoding="ascii") as file:
            file.write("nameserver 127.0.0.3\n")
        os.rename(f"{target}.new", target)
        with name_server("127.0.0.3"):
            capture.connected()
        shadow = force(capture.pid, "openat", AT_FDCWD, "/etc/shadow", os.O_RDONLY)
        if user is None:
            equal(shadow, -errno.EACCES, "opening /etc/shadow")
        capture.stop()
        collect.stop()
        os.unlink("/etc/resolv.conf")


def test_user_is_changed(testbed):
    """With RUN_AS_USER every thread runs as that user, in its groups only. It captures, relays, and writes its files,
    which belong to that user."""
    directory = testbed.path("data")
    os.mkdir(directory)
    os.chown(directory, 65534, 65534)
    endpoint = "tcp://127.0.0.1:7386"
    output = os.path.join(directory, "out.pcap")
    collect = testbed.collect(
        collect_endpoint=endpoint, output=output, run_as_user=NOBODY, metrics_file=f"{directory}/collect.prom"
    )
    capture = testbed.capture(
        relay_endpoint=endpoint, run_as_user=NOBODY, metrics_file=f"{directory}/capture.prom"
    ).connected()
    testbed.home.run("ping", "-q", "-c", "3", "-i", "0.02", "127.0.0.1")
    collect.wait_for_metric("packeteur_source_received_packets_total", 6)
    for program in (capture, collect):
        is_confined(program, uid="65534")
        for thread in threads(program):
            found = status(program, thread)
            equal(found["Gid"].split(), ["65534"] * 4, "group IDs")
            equal([group for group in found["Groups"].split() if group == "0"], [], "root's group")
        check(program.metrics().one("process_open_fds") > 0, "process metrics")
        equal(program.log_lines("WARN|ERROR"), [], "warnings")
        program.stop()
    for name in ("out.pcap", "capture.prom", "collect.prom"):
        equal(os.stat(os.path.join(directory, name)).st_uid, 65534, f"owner of {name}")
    without = testbed.observe("off", sandbox="off", run_as_user=NOBODY, metrics_file=None).ready()
    for thread in threads(without):
        found = status(without, thread)
        equal((found["Uid"].split(), int(found["CapEff"], 16)), (["65534"] * 4, 0), "user IDs and capabilities")
    without.stop()


def test_user_cannot_write(testbed):
    """An output or metrics file that the user may not write is an error that names the setting and the remedy."""
    os.mkdir(testbed.path("roots"), 0o755)
    path = testbed.path("roots/file")
    endpoint = testbed.endpoint()
    settings = {"collect_endpoint": endpoint, "run_as_user": NOBODY}
    output = testbed.pcktr("output", mode="collect", output=path, metrics_file=None, **settings)
    output.wait(code=1)
    metrics = testbed.pcktr("metrics", mode="collect", metrics_file=path, **settings)
    metrics.wait(code=1)
    for program, setting in ((output, "OUTPUT"), (metrics, "METRICS_FILE")):
        for part in (f"{setting}: cannot write", path, "Permission denied", "writable by this user"):
            check(part in program.log(), f"`{part}` is not in: {program.log()}")
    check(not os.path.exists(path), "the file exists")


def test_unknown_and_other_users_are_refused(testbed):
    """An unknown user, and another user or group without root, are errors in the settings."""
    unknown = testbed.observe("unknown", run_as_user="no-such-user")
    unknown.wait(code=64)
    check("RUN_AS_USER: `no-such-user` names no user of this host" in unknown.log(), unknown.log())
    testbed.need("setpriv")
    program = shutil.copy(PCKTR, testbed.path("pcktr"))
    os.chmod(program, 0o755)
    prefix = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    other = testbed.observe("other", prefix=prefix, binary=program, run_as_user=pwd.getpwuid(0).pw_name)
    other.wait(code=64)
    check("is another user than the one that started the program" in other.log(), other.log())
    group = testbed.observe("group", prefix=prefix, binary=program, run_as_user="65534:65533")
    group.wait(code=64)
    check("has another group than the program was started with, 65534" in group.log(), group.log())


def test_metrics_file_in_a_shared_directory(testbed):
    """A METRICS_FILE beside the files of other programs is written, and one warning says what the sandbox allows there.
    Without the sandbox, and in a directory of its own, there is none."""
    for name, sandbox, expected in (("on", "on", 1), ("off", "off", 0)):
        path = f"/tmp/pcktr-e2e-{os.getpid()}-{name}.prom"
        observe = testbed.observe(name, metrics_file=path, sandbox=sandbox).ready()
        observe.stop()
        os.unlink(path)
        warnings = observe.log_lines("WARN")
        equal(len(warnings), expected, f"warnings: {warnings}")
        for warning in warnings:
            for part in (f"METRICS_FILE: `{path}`", "directory=/tmp", "use a directory of its own"):
                check(part in warning, f"`{part}` is not in: {warning}")


def test_metrics_file_is_rewritten(testbed):
    """METRICS_FILE is replaced in the sandbox: at the end it has what happened after the start."""
    observe = testbed.observe(filter="icmp").ready()
    testbed.home.run("ping", "-q", "-c", "3", "-i", "0.02", "127.0.0.1")
    observe.wait_for_metric("packeteur_capture_total", 6)
    before = os.stat(observe.metrics_file).st_ino
    observe.stop()
    until(lambda: os.stat(observe.metrics_file).st_ino != before, "the metrics file was not replaced")
    equal(observe.last_metrics().sum("packeteur_capture_total"), 6, "packets")
