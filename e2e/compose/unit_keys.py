"""The systemd units with keys: the drop-ins, and the commands that deploy/README.md gives for them."""

from e2e.compose.stack import HEAD, contents
from e2e.compose.wire import recorded
from testkit.outcome import check, equal, until

AUTHORIZED_KEYS = "/etc/pcktr/authorized_keys"
# Seconds. The interval between a refused capture's attempts grows to 30 s.
TIMEOUT = 60


def keygen(units, name):
    return units.execute("env", "MODE=keygen", f"KEY_FILE=/etc/pcktr/{name}.key", "pcktr").strip()


def authorize(units, line):
    """Replaces the list of keys, as editors do: by renaming another file."""
    units.write(f"{AUTHORIZED_KEYS}.new", f"# captures\n{line}\n")
    units.execute("mv", f"{AUTHORIZED_KEYS}.new", AUTHORIZED_KEYS)


def written(units):
    return contents(units.files()["packets.pcap"])


def relay(units):
    """Sends packets, and waits until the collector has written them."""
    expected = units.send()
    until(lambda: expected.items() <= written(units).items(), "the packets are not in the file", TIMEOUT)


def sent_in_the_clear(units):
    """Without keys, packets can be read on the way."""
    with recorded(units.pid()) as stop:
        relay(units)
        check(HEAD.search(stop()), "no packet was recorded")


def encrypted_with_keys(units):
    """With the drop-ins, packets arrive, and cannot be read on the way."""
    units.execute("install", "-d", "-m", "755", "/etc/pcktr")
    collector, units.key = keygen(units, "collect"), keygen(units, "capture")
    authorize(units, f"{units.key} *")
    for mode in ("capture", "collect"):
        folder = f"pcktr-{mode}.service.d"
        units.execute("cp", "-r", f"/systemd/{folder}", "/etc/systemd/system/")
    units.execute("bash", "-c", f"echo COLLECTOR_KEY={collector} >>/etc/default/pcktr-capture")
    units.systemctl("daemon-reload")
    for mode in ("collect", "capture"):
        units.systemctl("restart", f"pcktr-{mode}")
    units.wait_for_connection()
    with recorded(units.pid()) as stop:
        relay(units)
        data = stop()
    check(len(data) > 100 * len(written(units)), f"only {len(data)} bytes were recorded")
    check(HEAD.search(data) is None, "packets can be read on the way")


def refused_when_removed(units):
    """A removed key's connection ends, and the capture says why. Nothing is lost until the key is listed again."""

    def rejected(reason):
        return units.metrics("collect").sum("packeteur_rejected_connections_total", reason=reason)

    authorize(units, "")
    until(lambda: rejected("removed_key") and rejected("unknown_key"), "the capture is not refused", TIMEOUT)
    message = f"the collector does not admit this capture's key {units.key}"
    log = ["journalctl", "-u", "pcktr-capture", "-o", "cat", "--no-pager"]
    until(lambda: message in units.execute(*log), "the capture does not say why", TIMEOUT)
    before, expected = written(units), units.send()
    until(
        lambda: units.metrics("capture").sum("packeteur_relay_queued_packets") >= len(expected),
        "the packets are not queued",
        TIMEOUT,
    )
    equal(written(units), before, "packets written")
    authorize(units, f"{units.key} *")
    until(lambda: written(units) == before | expected, "the packets don't arrive", TIMEOUT)


def kept_secret(units):
    """Only the service's user can read its key. The key is neither in its environment nor in the journal."""
    for mode in ("capture", "collect"):
        secret = units.execute("cat", f"/etc/pcktr/{mode}.key").strip()
        pid = units.main_pid(mode)
        environment = units.execute("cat", f"/proc/{pid}/environ")
        path = next(word for word in environment.split("\0") if word.startswith("KEY_FILE=")).partition("=")[2]
        equal(units.execute("cat", path).strip(), secret, "the credential")
        as_another = ["setpriv", "--reuid=7386", "--regid=7386", "--clear-groups", "sh", "-c", f"id -u; cat {path}"]
        equal(units.execute(*as_another, check=False), "7386\n", "what another user can read")
        journal = units.execute("journalctl", "--no-pager")
        check(secret not in environment and secret not in journal, "the secret key is shown")


STEPS = [sent_in_the_clear, encrypted_with_keys, refused_when_removed, kept_secret]
