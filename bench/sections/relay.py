"""A file through the relay to /dev/null, compared with byte pipes (socat, nc) and with tcpdump."""

import os
import subprocess
import time

from bench import input_files, ports
from bench.measurement import TIMEOUT, Measurement
from bench.table import Table, figure, in_turn, ratio
from testkit.build import PCKTR
from testkit.outcome import Failed, until

# Commands that send their input to `{port}`, or receive there and discard it. nc is that of OpenBSD.
SOCAT_OUT = ["socat", "-u", "-b", "262144", "-", "TCP:127.0.0.1:{port}"]
SOCAT_IN = ["socat", "-u", "-b", "262144", "TCP-LISTEN:{port},reuseaddr", "OPEN:/dev/null"]
NC_OUT = ["nc", "-N", "127.0.0.1", "{port}"]
NC_IN = ["nc", "-l", "127.0.0.1", "{port}"]


def run(bench):
    """File → capture → TCP over loopback → collect → /dev/null, one source."""
    count = bench.sized(5_000_000, 200_000)
    for sizes in input_files.SIZES:
        path = bench.work.input(input_files.write_traffic, sizes, count)
        contestants = [("pcktr", lambda: ours(bench, path, count))]
        for name, tools, sender, receiver in peers(path):
            if bench.has(name, *tools):
                contestants.append((name, lambda s=sender, r=receiver: theirs(bench, s, r)))
        results = in_turn(bench.rounds, contestants)
        yield f"{count / 1e6:g} million packets, {sizes}, {os.stat(path).st_size / 1e6:.0f} MB"
        yield table(results, count)
        if sizes == "mix":
            yield from run_encrypted(bench, path, count)
        bench.work.delete(path)
    path = bench.work.input(input_files.write_traffic, "small", 1)
    alone = [ours(bench, path, 1)[0] for _ in range(bench.rounds)]
    yield (
        f"With one packet pcktr takes {figure(alone)} s. That part of each time above is startup, shutdown, and the "
        "time for which a new collector waits for further sources (half of MERGE_WINDOW)."
    )


def run_encrypted(bench, path, count):
    """The same with keys, beside a pipe over TLS."""
    with Measurement(bench.work) as measurement:
        keys = make_keys(measurement)
        contestants = [("pcktr", lambda: ours(bench, path, count, keys))]
        if bench.has("socat, TLS", "socat", "openssl"):
            certificate = make_certificate(measurement)
            receiver = [*SOCAT_IN[:4], f"OPENSSL-LISTEN:{{port}},reuseaddr,verify=0,cert={certificate}", SOCAT_IN[5]]
            sender = [*SOCAT_OUT[:5], "OPENSSL:127.0.0.1:{port},verify=0"]
            contestants.append(("cat \\| socat → socat, TLS", lambda: theirs(bench, [["cat", path], sender], receiver)))
        results = in_turn(bench.rounds, contestants)
    gigabytes = os.stat(path).st_size / 1e9
    made = Table("", "GB/s", "CPU-s/GB, both ends")
    for name, each in results.items():
        rate = [gigabytes / seconds for seconds, _ in each]
        made.add(name, figure(rate), figure([cpu / gigabytes for _, cpu in each], 3))
    yield "The same, encrypted"
    yield made


def make_keys(measurement):
    """The settings of a collector and a capture that know each other's keys."""
    public = {}
    for name in ("collector", "capture"):
        file = measurement.path(f"{name}.key")
        environment = {**os.environ, "MODE": "keygen", "KEY_FILE": str(file)}
        made = subprocess.run([PCKTR], env=environment, check=True, capture_output=True, text=True)
        public[name] = made.stdout.strip()
    authorized = measurement.path("authorized_keys")
    with open(authorized, "w") as file:
        file.write(f"{public['capture']} *\n")
    return {
        "collector": {"key_file": measurement.path("collector.key"), "authorized_keys": authorized},
        "capture": {"key_file": measurement.path("capture.key"), "collector_key": public["collector"]},
    }


def make_certificate(measurement):
    """A file with a key and a certificate for it."""
    file = measurement.path("tls.pem")
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1"]
    subprocess.run([*new, "-keyout", str(file), "-out", f"{file}.crt"], check=True, capture_output=True)
    with open(file, "a") as both, open(f"{file}.crt") as certificate:
        both.write(certificate.read())
    return file


def peers(path):
    """Name, tools, the commands that send to a port, and the command that receives there."""
    cat = ["cat", path]
    user = ["-Z", "root"] if os.geteuid() == 0 else []
    dump = ["tcpdump", *user, "-r", path, "-w", "-"]
    yield "cat \\| socat → socat", ["socat"], [cat, SOCAT_OUT], SOCAT_IN
    yield "tcpdump \\| socat → socat", ["tcpdump", "socat"], [dump, SOCAT_OUT], SOCAT_IN
    yield "cat \\| nc → nc", ["nc"], [cat, NC_OUT], NC_IN


def ours(bench, path, count, keys=None):
    """Seconds, and CPU seconds of both ends. `keys`: settings of both, see `make_keys`."""
    keys = keys or {"collector": {}, "capture": {}}
    with Measurement(bench.work) as measurement:
        endpoint = measurement.endpoint()
        collector = measurement.collect(collect_endpoint=endpoint, exit_on_end="true", **keys["collector"])
        began = time.monotonic()
        capture = measurement.capture(relay_endpoint=endpoint, read_file=path, **keys["capture"])
        usage = [collector.wait(seconds=TIMEOUT), capture.wait(seconds=TIMEOUT)]
        seconds = time.monotonic() - began
        written = collector.last_metrics().sum("packeteur_source_written_packets_total")
        if written != count:
            raise Failed(f"{written} packets were written, not {count}")
        return seconds, sum(used.cpu for used in usage)


def theirs(bench, senders, receiver):
    """The same for a pipe."""
    with Measurement(bench.work) as measurement:
        port = measurement.home.free_port()
        receiving = measurement.start("receiver", *with_port(receiver, port))
        until(lambda: ports.is_listening(port), f"{receiver[0]} does not listen")
        began = time.monotonic()
        sending = start_pipe(measurement, [with_port(argv, port) for argv in senders])
        # The receiver may end the connection first, and the senders then fail.
        usage = [receiving.wait(seconds=TIMEOUT), *(program.wait(None, TIMEOUT) for program in sending)]
        return time.monotonic() - began, sum(used.cpu for used in usage)


def with_port(argv, port):
    return [arg.replace("{port}", str(port)) for arg in argv]


def start_pipe(measurement, commands):
    """Starts commands, each with its output connected to the next one's input."""
    programs, previous = [], subprocess.DEVNULL
    for number, argv in enumerate(commands):
        output = subprocess.DEVNULL if argv is commands[-1] else subprocess.PIPE
        programs.append(measurement.start(f"sender-{number}", *argv, stdin=previous, stdout=output))
        if previous is not subprocess.DEVNULL:
            previous.close()
        previous = programs[-1].stdout
    return programs


def table(results, count):
    """Rates and costs, and the ratios of ours to the peer's in the same round."""
    made = Table("", "Mpps", "CPU-s/M, both ends", "ours, times its rate", "ours, times its cost")
    rate = {name: [count / seconds / 1e6 for seconds, _ in each] for name, each in results.items()}
    cost = {name: [cpu / count * 1e6 for _, cpu in each] for name, each in results.items()}
    for name in results:
        beside = ["", ""]
        if name != "pcktr":
            beside = [ratio(rate["pcktr"], rate[name]), ratio(cost["pcktr"], cost[name])]
        made.add(name, figure(rate[name]), figure(cost[name], 3), *beside)
    return made
