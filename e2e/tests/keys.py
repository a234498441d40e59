"""Keys: an encrypted relay, who is admitted to it, and what is said to those who are not."""

import os
import socket
import stat
import subprocess
import threading
import time

from testkit import keys, traffic
from testkit.build import PCKTR
from testkit.host import Host, join
from testkit.ledger import Account, check_agreement, nothing_lost
from testkit.outcome import check, equal, until
from testkit.pcktr import environment

# What is searched for in everything that must not have it.
SECRET = b"The quick brown fox jumps over the lazy dog. "

RETRYING = "; queueing packets in RELAY_BUFFER and retrying"


class Relay:
    """A collector with keys, at an endpoint of its own."""

    def __init__(self, testbed, lines=(), **settings):
        """`lines`: of AUTHORIZED_KEYS."""
        self.testbed = testbed
        self.key = keys.make(testbed, "collector")
        self.list = testbed.path("authorized_keys")
        keys.authorize(self.list, lines)
        self.endpoint = testbed.endpoint()
        own = {"key_file": self.key.path, "authorized_keys": self.list}
        self.collect = testbed.collect(collect_endpoint=self.endpoint, **own, **settings)

    def capture(self, name, key, port, **settings):
        """A capture of the datagrams to a port."""
        own = {"key_file": key.path, "collector_key": self.key.public, "relay_endpoint": self.endpoint}
        return self.testbed.capture(name, filter=f"udp dst port {port}", **{**own, **settings}).ready()

    def rejected(self, reason, what="connections"):
        return self.collect.metrics().sum(f"packeteur_rejected_{what}_total", reason=reason)

    def wait_for_rejected(self, reason, what="connections"):
        until(lambda: self.rejected(reason, what) >= 1, f"no {what} rejected: {reason}")


class Datagrams:
    """A stream of datagrams with numbers and text, to a port of its own."""

    def __init__(self, testbed):
        self.keeper = traffic.sink(testbed.home, "127.0.0.1")
        self.port = self.keeper.getsockname()[1]
        self.sent, self.ends = 0, threading.Event()
        self.socket = testbed.home.open_socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.thread = None

    def start(self):
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def _run(self):
        while not self.ends.wait(0.002):
            self.socket.sendto(self.sent.to_bytes(8, "big") + SECRET * 10, ("127.0.0.1", self.port))
            self.sent += 1

    def stop(self):
        self.ends.set()
        self.thread.join()
        return self.sent


def check_delivered(testbed, relay, capture, stream):
    """Stops the stream and the capture, and checks that the collector has written every datagram."""
    sent = stream.stop()
    capture.wait_for_metric("packeteur_device_received_packets_total", sent)
    capture.stop()
    relay.collect.wait_for_metric("packeteur_source_written_packets_total", sent, source=capture.name)
    equal(traffic.numbers(testbed.packets(relay.collect), stream.port), list(range(sent)), f"of {capture.name}")
    account = Account(relay.collect.metrics(), source=capture.name)
    nothing_lost(account)
    check_agreement(account, capture.last_metrics())


def test_keygen(testbed):
    """A key is made once, for its owner only. What is there already is not overwritten."""
    path = testbed.path("key")
    before = os.umask(0)
    code, public, err = keys.keygen(path)
    os.umask(before)
    equal((code, err, len(public)), (0, "", 45), f"exit code, standard error, length of {public}")
    equal(stat.S_IMODE(os.stat(path).st_mode), 0o600, "mode of the file")
    with open(path, "rb") as file:
        secret = file.read()
    check(secret.strip() not in public.encode(), "the secret key was printed")
    equal(keys.keygen(path), (0, public, ""), "printed again")
    with open(path, "rb") as file:
        equal(file.read(), secret, "the file")
    check(keys.make(testbed, "other").public != public.strip(), "two keys are the same")
    precious = testbed.write("precious", b"precious\n")
    os.chmod(precious, 0o600)
    code, public, err = keys.keygen(precious)
    equal((code, public), (64, ""), "exit code and standard output for another file")
    check(f"{precious}:1: the content is not a valid key" in err and "precious\n" not in err.split(precious)[-1], err)
    with open(precious, "rb") as file:
        equal(file.read(), b"precious\n", "the other file")
    code, public, err = keys.keygen(testbed.path("missing/key"))
    equal((code, public), (64, ""), "exit code and standard output without a directory")
    check("KEY_FILE: cannot write" in err and "No such file or directory" in err, err)


def relayed_bytes(testbed, name, endpoint, captures):
    """What tcpdump sees of a relay on `lo` while `captures` of 500 datagrams each run."""
    port = endpoint.rpartition(":")[2]
    tcpdump, path = testbed.tcpdump(name, "lo", expression=f"tcp port {port}")
    for capture, stream in captures:
        capture.connected()
        stream.start()
    for capture, _ in captures:
        capture.wait_for_metric("packeteur_relay_sent_packets_total", 500)
    return tcpdump, path


def test_encrypted_relay(testbed):
    """Two captures over TCP, one admitted by a pattern: every packet arrives, and none can be read on the way."""
    web, db = keys.make(testbed, "web"), keys.make(testbed, "db")
    # The first packets of the source that comes second wait long enough not to be late.
    relay = Relay(testbed, ["# captures", "", (web, "web-*,www"), (db, "db  # the database")], merge_window="2s")
    streams = [Datagrams(testbed) for _ in range(2)]
    captures = [
        relay.capture(name, key, stream.port, compression="none")
        for name, key, stream in (("web-1", web, streams[0]), ("db", db, streams[1]))
    ]
    tcpdump, path = relayed_bytes(testbed, "encrypted", relay.endpoint, list(zip(captures, streams)))
    for capture, stream in zip(captures, streams):
        check_delivered(testbed, relay, capture, stream)
    tcpdump.stop()
    relay.collect.stop()
    with open(path, "rb") as file:
        seen = file.read()
    check(len(seen) > 2 * 500 * 10 * len(SECRET), "tcpdump has not seen the relay")
    for text in (SECRET.strip(), b"PKTR", b"web-1"):
        check(text not in seen, f"{text} was sent in clear text")
    # In clear text it does see them.
    endpoint, stream = testbed.endpoint(), Datagrams(testbed)
    testbed.collect("plain-collect", collect_endpoint=endpoint)
    settings = {"relay_endpoint": endpoint, "filter": f"udp dst port {stream.port}", "compression": "none"}
    plain = testbed.capture("web-1-plain", **settings).ready()
    tcpdump, path = relayed_bytes(testbed, "plain", endpoint, [(plain, stream)])
    stream.stop()
    plain.stop()
    tcpdump.stop()
    with open(path, "rb") as file:
        seen = file.read()
    check(all(text in seen for text in (SECRET.strip(), b"PKTR", b"web-1")), "this test cannot fail")


def test_unknown_key(testbed):
    """A capture whose key is not listed: both sides say so, and packets are kept until the list is corrected."""
    known, unknown = keys.make(testbed, "known"), keys.make(testbed, "unknown")
    relay = Relay(testbed, [(known, "*")])
    stream = Datagrams(testbed)
    capture = relay.capture("capture", unknown, stream.port)
    stream.start()
    capture.wait_for_log(
        f"WARN.*the collector does not admit this capture's key {unknown.public.replace('+', '[+]')}: "
        f"add it to AUTHORIZED_KEYS there{RETRYING}"
    )
    relay.wait_for_rejected("unknown_key")
    lines = relay.collect.log_lines(
        f"has the key {unknown.public.replace('+', '[+]')}, which is not in AUTHORIZED_KEYS"
    )
    equal(len(lines), 1, "log lines of the collector")
    capture.wait_for_metric("packeteur_relay_queued_packets", 100)
    equal(capture.metrics().sum("packeteur_relay_sent_packets_total"), 0, "packets sent")
    keys.authorize(relay.list, [(known, "*"), (unknown, "cap*")])
    capture.wait_for_log("connected to the collector", 30)
    check_delivered(testbed, relay, capture, stream)
    equal(len(capture.log_lines(RETRYING)), 1, "log lines of the capture")
    equal(len(relay.collect.log_lines("which is not in AUTHORIZED_KEYS")), 1, "log lines of the collector")


def test_wrong_collector_key(testbed):
    """A capture with another collector's key says so, sends nothing, and keeps its packets."""
    own, other = keys.make(testbed, "own"), keys.make(testbed, "other")
    relay = Relay(testbed, [(own, "*")])
    stream = Datagrams(testbed)
    capture = relay.capture("capture", own, stream.port, collector_key=other.public)
    stream.start()
    capture.wait_for_log(f"WARN.*COLLECTOR_KEY.*{RETRYING}")
    relay.wait_for_rejected("wrong_collector_key")
    relay.collect.wait_for_log('WARN.*the peer encrypts for another key than this side.*reason="wrong_collector_key"')
    capture.wait_for_metric("packeteur_relay_queued_packets", 100)
    equal(capture.metrics().sum("packeteur_relay_sent_packets_total"), 0, "packets sent")
    equal(len(capture.log_lines(RETRYING)), 1, "log lines of the capture")
    stream.stop()


def test_name_of_another(testbed):
    """A capture under a name that its key may not use is refused, at first and when the list changes; both sides say
    so. With the list corrected, it carries on."""
    web = keys.make(testbed, "web")
    relay = Relay(testbed, [(web, "web")])
    stream = Datagrams(testbed)
    capture = relay.capture("db", web, stream.port)
    stream.start()
    public = web.public.replace("+", "[+]")
    refusal = f"the collector does not allow this SOURCE_NAME for the key {public}: add the name to its line"
    capture.wait_for_log(f"WARN.*{refusal}.*{RETRYING}")
    relay.wait_for_rejected("unauthorized_name")
    relay.collect.wait_for_log(f'WARN.*has the key {public}, which may not use the SOURCE_NAME "db"')
    equal(relay.collect.metrics().sum("packeteur_source_received_batches_total"), 0, "batches under another's name")
    keys.authorize(relay.list, [(web, "web db")])
    # For longer than a second: the refusal of a connection that lasted less is a repetition, and not logged again.
    relay.collect.wait_for_metric("packeteur_source_written_packets_total", 1, seconds=30, source="db")
    sent = capture.metrics().sum("packeteur_device_received_packets_total")
    relay.collect.wait_for_metric("packeteur_source_written_packets_total", sent + 750, source="db")
    # What is admitted ends with the next batch.
    keys.authorize(relay.list, [(web, "web")])
    relay.wait_for_rejected("unauthorized_name", "batches")
    until(lambda: len(capture.log_lines(refusal)) == 2, "the capture does not say that it is refused again")
    written = relay.collect.metrics().sum("packeteur_source_written_packets_total")
    capture.wait_for_metric("packeteur_relay_queued_packets", 100)
    equal(relay.collect.metrics().sum("packeteur_source_written_packets_total"), written, "packets written since")
    equal(len(relay.collect.log_lines("which may not use the SOURCE_NAME")), 1, "log lines of the collector")
    keys.authorize(relay.list, [(web, "web db")])
    relay.collect.wait_for_metric("packeteur_source_written_packets_total", written + 100, seconds=30, source="db")
    stream.stop()


def test_removed_key(testbed):
    """A key that is removed ends its connection in about two seconds. Other connections stay."""
    kept, removed = keys.make(testbed, "kept"), keys.make(testbed, "removed")
    relay = Relay(testbed, [(kept, "kept"), (removed, "removed")])
    stream = Datagrams(testbed)
    keeps = relay.capture("kept", kept, stream.port)
    goes = relay.capture("removed", removed, stream.port)
    stream.start()
    for capture in (keeps, goes):
        relay.collect.wait_for_metric("packeteur_source_written_packets_total", 100, source=capture.name)
    begin = time.monotonic()
    keys.authorize(relay.list, [(kept, "kept")])
    relay.wait_for_rejected("removed_key")
    took = time.monotonic() - begin
    check(took < 3, f"the connection ended after {took:.1f} s")
    goes.wait_for_log("WARN.*does not admit this capture's key")
    relay.collect.wait_for_log("has a key that was removed from AUTHORIZED_KEYS")
    before = relay.collect.metrics().sum("packeteur_source_received_packets_total", source="removed")
    kept_before = relay.collect.metrics().sum("packeteur_source_received_packets_total", source="kept")
    relay.collect.wait_for_metric("packeteur_source_received_packets_total", kept_before + 300, source="kept")
    after = relay.collect.metrics().sum("packeteur_source_received_packets_total", source="removed")
    equal(after, before, "packets under the removed key")
    stream.stop()
    keeps.stop()
    equal(keeps.last_metrics().one("packeteur_relay_connections_total"), 1, "connections of the other capture")


def test_keys_on_one_side_only(testbed):
    """A capture without keys and a collector with keys, and the other way round: both say what is missing; nothing is
    sent."""
    own = keys.make(testbed, "own")
    relay = Relay(testbed, [(own, "*")])
    stream = Datagrams(testbed)
    without = relay.capture("without", own, stream.port, key_file=None, collector_key=None)
    plain = testbed.endpoint()
    collect = testbed.collect("plain", collect_endpoint=plain)
    encrypted = relay.capture("with", own, stream.port, relay_endpoint=plain)
    stream.start()
    without.wait_for_log(f"WARN.*the collector requires keys: set KEY_FILE and COLLECTOR_KEY{RETRYING}")
    encrypted.wait_for_log(
        "WARN.*the collector uses no keys, and nothing is sent without: set KEY_FILE and AUTHORIZED_KEYS there"
        + RETRYING
    )
    for program in (relay.collect, collect):
        reasons = ("mechanism", "handshake")

        def rejected(program=program, reasons=reasons):
            metrics = program.metrics()
            return sum(metrics.sum("packeteur_rejected_connections_total", reason=reason) for reason in reasons)

        until(lambda: rejected() >= 1, f"{program.name} counts nothing")
        program.wait_for_log("WARN.*connection closed: the peer (uses the mechanism|ended the handshake)")
        equal(program.metrics().sum("packeteur_source_received_batches_total"), 0, f"batches of {program.name}")
    for capture in (without, encrypted):
        capture.wait_for_metric("packeteur_relay_queued_packets", 100)
        equal(capture.metrics().sum("packeteur_relay_sent_packets_total"), 0, f"packets sent by {capture.name}")
        equal(len(capture.log_lines(RETRYING)), 1, f"log lines of {capture.name}")
    stream.stop()


def test_invalid_list_on_reload(testbed):
    """A list that cannot be used leaves the one before in force, and the log says so, once. So does a missing file."""
    first, second = keys.make(testbed, "first"), keys.make(testbed, "second")
    relay = Relay(testbed, [(first, "first"), (second, "second")])
    stream = Datagrams(testbed).start()
    connected = relay.capture("first", first, stream.port).connected()
    keys.authorize(relay.list, [(first, "first"), "nonsense"])
    relay.collect.wait_for_log(
        f"ERROR.*AUTHORIZED_KEYS: {relay.list}:2: the first word is not a valid key.*"
        "; the keys read before stay in force"
    )
    # In force for new connections too.
    other = relay.capture("second", second, stream.port).connected()
    os.remove(relay.list)
    relay.collect.wait_for_log(f"ERROR.*AUTHORIZED_KEYS: cannot read `{relay.list}`: No such file.*stay in force")
    before = relay.collect.metrics().sum("packeteur_source_received_packets_total", source="first")
    relay.collect.wait_for_metric("packeteur_source_received_packets_total", before + 300, source="first")
    equal(len(relay.collect.log_lines("stay in force")), 2, "log lines about lists that cannot be used")
    keys.authorize(relay.list, [(first, "first")])
    relay.collect.wait_for_log("INFO.*AUTHORIZED_KEYS read again.*keys=1")
    relay.wait_for_rejected("removed_key")
    stream.stop()
    connected.stop()
    equal(connected.last_metrics().one("packeteur_relay_connections_total"), 1, "connections of the capture that stays")
    other.wait_for_log("does not admit this capture's key")


def run(**settings):
    """Runs the program. Returns exit code and standard error."""
    done = subprocess.run([PCKTR], env=environment(settings), capture_output=True, text=True, timeout=20)
    return done.returncode, done.stderr


def test_invalid_settings(testbed):
    """Keys and lists that cannot be used: file, line, reason and remedy, and exit code 64. No secret is repeated."""
    own, other = keys.make(testbed, "own"), keys.make(testbed, "other")

    def file(name, text, mode=0o600):
        path = testbed.write(name, text.encode())
        os.chmod(path, mode)
        return path

    no_key = file("no-key", "c2VjcmV0LXRoYXQtaXMtdG9vLXNob3J0\n")
    readable = file("readable", f"{own.secret()}\n", 0o644)
    valid = file("valid", f"{other.public} *\n")
    writable = file("writable", f"{other.public} *\n", 0o666)
    gone = testbed.path("gone")

    def listing(name, text):
        path = file(name, text)
        return {"mode": "collect", "key_file": own.path, "authorized_keys": path}, path

    def collector(key_file):
        return {"mode": "collect", "key_file": key_file, "authorized_keys": valid}

    def capture(key_file, collector_key=other.public):
        return {"mode": "capture", "key_file": key_file, "collector_key": collector_key}

    bad_key, bad_key_path = listing("bad-key", f"# two\n{other.public[:-2]} web\n")
    pattern, pattern_path = listing("pattern", f"{other.public} web\n{own.public} web[1-3]\n")
    nameless, nameless_path = listing("nameless", f"{other.public}\n")
    twice, twice_path = listing("twice", f"{other.public} a\n{other.public} b\n")
    for settings, expected in (
        (capture(no_key), (f"KEY_FILE: {no_key}:1: the content is not a valid key", "MODE=keygen")),
        (collector(no_key), (f"KEY_FILE: {no_key}:1: the content is not a valid key", "MODE=keygen")),
        (capture(readable), (f"KEY_FILE: `{readable}` is accessible to others (mode 0644)", f"`chmod 600 {readable}`")),
        (collector(readable), (f"KEY_FILE: `{readable}` is accessible to others (mode 0644)", "chmod 600")),
        (capture(gone), (f"KEY_FILE: cannot read `{gone}`: No such file", "MODE=keygen")),
        (capture(own.path, "nonsense"), ("COLLECTOR_KEY: `nonsense`", "44 characters of base64")),
        (capture(own.path, None), (f"KEY_FILE: `{own.path}` has no effect without COLLECTOR_KEY", "public key")),
        (capture(None), ("COLLECTOR_KEY: ", "needs this program's own key", "MODE=keygen")),
        ({"mode": "collect", "key_file": own.path}, ("has no effect without AUTHORIZED_KEYS", "name a file")),
        ({"mode": "collect", "authorized_keys": valid}, ("AUTHORIZED_KEYS: ", "needs this program's own key")),
        (
            {"mode": "collect", "key_file": own.path, "authorized_keys": gone},
            (f"AUTHORIZED_KEYS: cannot read `{gone}`: No such file",),
        ),
        (
            {"mode": "collect", "key_file": own.path, "authorized_keys": writable},
            (
                f"AUTHORIZED_KEYS: `{writable}` is writable by every user of this host (mode 0666)",
                f"chmod o-w {writable}",
            ),
        ),
        (bad_key, (f"AUTHORIZED_KEYS: {bad_key_path}:2: the first word is not a valid key", "MODE=keygen")),
        (pattern, (f"AUTHORIZED_KEYS: {pattern_path}:2: `web[1-3]` contains `[`", "`*` is the only wildcard")),
        (nameless, (f"AUTHORIZED_KEYS: {nameless_path}:1: no name follows the key", "SOURCE_NAME")),
        (twice, (f"AUTHORIZED_KEYS: {twice_path}:2: the key is in line 1 already", "one line")),
        ({"mode": "keygen"}, ("KEY_FILE: ", "is missing", "/etc/pcktr/key")),
    ):
        endpoint = testbed.endpoint()
        code, err = run(relay_endpoint=endpoint, collect_endpoint=endpoint, metrics_addrport="127.0.0.1:0", **settings)
        equal(code, 64, f"exit code for {settings} ({err})")
        for text in expected:
            check(text in err, f"not `{text}`: {err}")
        check(own.secret() not in err, f"a secret key was printed: {err}")


def test_secrets_are_nowhere(testbed):
    """Secret keys are in their files and in memory, and nowhere else: not in logs of any level, metrics, help,
    arguments or environment."""
    own = keys.make(testbed, "own")
    relay = Relay(testbed, [(own, "*")], log="trace")
    stream = Datagrams(testbed).start()
    capture = relay.capture("capture", own, stream.port, log="trace").connected()
    relay.collect.wait_for_metric("packeteur_source_written_packets_total", 100)
    stranger = keys.make(testbed, "stranger")
    refused = relay.capture("refused", stranger, stream.port, log="trace")
    refused.wait_for_log("does not admit this capture's key")
    programs = {relay.collect: relay.key, capture: own, refused: stranger}
    places = {}
    for program, key in programs.items():
        places[f"log of {program.name}"] = program.log()
        places[f"metrics of {program.name}"] = program.get("/metrics").text
        for path in ("cmdline", "environ", "comm"):
            with open(f"/proc/{program.pid}/{path}", encoding="utf-8") as file:
                places[f"{path} of {program.name}"] = file.read()
        check(key.path in places[f"environ of {program.name}"], "KEY_FILE is not in the environment")
    stream.stop()
    # A capture that was never admitted waits in vain for its end.
    refused.kill()
    for program in (capture, relay.collect):
        program.stop()
        places[f"last log of {program.name}"] = program.log()
        with open(program.metrics_file, encoding="utf-8") as file:
            places[f"last metrics of {program.name}"] = file.read()
    environ = environment({"mode": "capture", "key_file": own.path, "collector_key": relay.key.public})
    places["help"] = subprocess.run([PCKTR, "--help"], env=environ, capture_output=True, text=True, timeout=20).stdout
    check(all(places.values()), f"empty: {[place for place, text in places.items() if not text]}")
    for key in programs.values():
        for place, text in places.items():
            check(key.secret().rstrip("=") not in text, f"a secret key is in the {place}")


def test_warning_without_keys(testbed):
    """Without keys, and with an endpoint that others reach, both sides say once what that means."""
    captures = "the relay is not encrypted: anyone on the path to RELAY_ENDPOINT can read the packets"
    collectors = "the relay is not encrypted, and everybody who reaches COLLECT_ENDPOINT can send packets"
    join(testbed.home, "near", Host("other"), "far", ("10.8.0.1/24", "10.8.0.2/24"))
    own = keys.make(testbed, "own")
    authorized = testbed.path("list")
    keys.authorize(authorized, [(own, "*")])
    for name, endpoint, has_keys, warnings in (
        ("remote", testbed.endpoint("10.8.0.1"), False, 1),
        ("loopback", testbed.endpoint(), False, 0),
        ("socket", f"ipc://{testbed.path('socket')}", False, 0),
        ("encrypted", testbed.endpoint("10.8.0.1"), True, 0),
    ):
        for_collect = {"key_file": own.path, "authorized_keys": authorized} if has_keys else {}
        for_capture = {"key_file": own.path, "collector_key": own.public} if has_keys else {}
        collect = testbed.collect(f"{name}-collect", collect_endpoint=endpoint, **for_collect)
        capture = testbed.capture(name, relay_endpoint=endpoint, **for_capture).ready().connected()
        equal(len(capture.log_lines(f"WARN.*{captures}")), warnings, f"warnings of the capture, {name}")
        equal(len(collect.log_lines(f"WARN.*{collectors}")), warnings, f"warnings of the collector, {name}")
        if warnings:
            check("(set KEY_FILE and COLLECTOR_KEY)" in capture.log(), "no remedy for the capture")
            check("(set KEY_FILE and AUTHORIZED_KEYS)" in collect.log(), "no remedy for the collector")
