"""WEB_CONFIG_FILE: TLS, client certificates and passwords, as Prometheus uses them, and reloading."""

import base64
import os
import re
import ssl
import subprocess
import time

from testkit import http
from testkit.build import PCKTR, ROOT
from testkit.certificates import LONG_AGO, PAST, Authority
from testkit.metrics import Metrics
from testkit.outcome import check, equal, until

PASSWORD, HASH = "s3cret pass", "$2y$10$abcdefghijklmnopqrstuuCVU4tzEy1Srvn3MhIQlChy0eVdfLDtG"
CHANGED, CHANGED_HASH = "changed", "$2y$10$abcdefghijklmnopqrstuu9DJYso2UGqoUAPDo.a93nDJJctUHmN."
# A check of this one takes about a quarter of a second.
SLOW_HASH = "$2y$12$abcdefghijklmnopqrstuuvhqlfa3SToYAWnpQD0wYcoxAD7y2cEy"

SERVER = "tls_server_config: {cert_file: pki/server.pem, key_file: pki/server.key}\n"
USERS = f"basic_auth_users: {{prometheus: '{HASH}'}}\n"


def basic(password, user="prometheus"):
    """The header of a request with a password."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


class Fixture:
    """A certification authority, a server's certificate, and an exporter."""

    def __init__(self, testbed, text, **settings):
        self.testbed = testbed
        self.authority = Authority(testbed.path("pki"))
        self.server = self.authority.issue("server")
        self.client = self.authority.issue("client")
        self.config = self.write(text)
        self.observe = testbed.observe(web_config_file=self.config, **settings).ready()

    def write(self, text):
        """Replaces the configuration."""
        return self.testbed.write("web.yml", text.encode())

    def tls(self, client=None):
        """A client's TLS, with or without a certificate."""
        context = ssl.create_default_context(cafile=self.authority.own.cert)
        if client is not None:
            context.load_cert_chain(client.cert, client.key)
        return context

    def get(self, path, password=None, client=None):
        """The response to a request over TLS."""
        headers = None if password is None else basic(password)
        return self.observe.get(path, tls=self.tls(client), headers=headers)

    def tls_error(self):
        """The error of a request without a client certificate; none if it succeeds."""
        try:
            self.get("/-/healthy")
        except (ssl.SSLError, ConnectionError) as error:
            return error
        return None

    def metrics(self, password=PASSWORD):
        return Metrics(self.get("/metrics", password).text)

    def prometheus(self, **jobs):
        """Starts Prometheus with a job for each of these configurations. Returns a function for queries."""
        self.testbed.need("prometheus")
        port = self.testbed.home.free_port()
        target = f"static_configs: [{{targets: ['127.0.0.1:{self.observe.metrics_port()}']}}]"
        lines = ["global: {scrape_interval: 200ms, scrape_timeout: 200ms}", "scrape_configs:"]
        lines += [f"- {{job_name: {name}, scheme: https, {target}, {rest}}}" for name, rest in jobs.items()]
        config = self.testbed.write("prometheus.yml", "\n".join(lines).encode())
        self.testbed.start(
            "prometheus",
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={self.testbed.path('data')}",
            f"--web.listen-address=127.0.0.1:{port}",
        )

        def up(job):
            try:
                answer = http.get(self.testbed.home, port, f"/api/v1/query?query=up%7Bjob%3D%22{job}%22%7D")
            except OSError:
                return None
            found = re.search(r'"value":\[[\d.]+,"([^"]+)"\]', answer.text)
            return found and found.group(1)

        return up


def test_prometheus_scrapes_with_password(testbed):
    """Prometheus scrapes over TLS with the right password, and not with a wrong one or without TLS."""
    fixture = Fixture(testbed, SERVER + USERS)
    trust = f"tls_config: {{ca_file: {fixture.authority.own.cert}}}"
    up = fixture.prometheus(
        right=f"{trust}, basic_auth: {{username: prometheus, password: '{PASSWORD}'}}",
        wrong=f"{trust}, basic_auth: {{username: prometheus, password: wrong}}",
        without=trust,
        distrust=f"basic_auth: {{username: prometheus, password: '{PASSWORD}'}}",
    )
    until(lambda: up("right") == "1", "no scrape with the right password", 30)
    for job in ("wrong", "without", "distrust"):
        until(lambda job=job: up(job) == "0", f"the job `{job}` is not down", 30)
    metrics = fixture.metrics()
    check(metrics.one("packeteur_web_unauthorized_requests_total") >= 2, "unauthorized requests are not counted")
    check(metrics.one("packeteur_web_tls_errors_total") >= 1, "failed handshakes are not counted")
    equal(metrics.one("packeteur_web_config_last_reload_successful"), 1, "reload")
    equal(metrics.one("packeteur_web_certificate_expiry_timestamp_seconds"), 4733510400, "expiry of the certificate")
    log = fixture.observe.log()
    for secret in (PASSWORD, HASH, "wrong"):
        check(secret not in log, f"`{secret}` is in the log")
    equal(len(fixture.observe.log_lines("without a valid user name")), 1, "log lines about passwords")


def test_prometheus_scrapes_with_client_certificate(testbed):
    """Prometheus scrapes with a client certificate, and not without one or with one of another authority."""
    policy = "client_auth_type: RequireAndVerifyClientCert, client_ca_file: pki/authority.pem"
    fixture = Fixture(testbed, SERVER.replace("}", f", {policy}}}"))
    stranger = Authority(testbed.path("other")).issue("client")
    trust = f"ca_file: {fixture.authority.own.cert}"
    up = fixture.prometheus(
        right=f"tls_config: {{{trust}, cert_file: {fixture.client.cert}, key_file: {fixture.client.key}}}",
        without=f"tls_config: {{{trust}}}",
        stranger=f"tls_config: {{{trust}, cert_file: {stranger.cert}, key_file: {stranger.key}}}",
    )
    until(lambda: up("right") == "1", "no scrape with the client certificate", 30)
    for job in ("without", "stranger"):
        until(lambda job=job: up(job) == "0", f"the job `{job}` is not down", 30)
    equal(fixture.get("/-/healthy", client=fixture.client).status, 200, "health with a certificate")
    check(fixture.tls_error(), "health without a certificate")


def test_paths_that_need_a_password(testbed):
    """All paths need a password, except the health checks. Headers are those of the configuration."""
    fixture = Fixture(testbed, SERVER + USERS + "http_server_config: {headers: {X-Frame-Options: deny}}\n")
    for path, status in (("/", 401), ("/metrics", 401), ("/none", 401), ("/-/healthy", 200), ("/-/ready", 200)):
        for password in (None, "wrong", ""):
            response = fixture.get(path, password)
            equal(response.status, status, f"{path} with password {password}")
            equal("WWW-Authenticate" in response.headers, status == 401, "WWW-Authenticate")
            equal(response.headers["X-Frame-Options"], "deny", "X-Frame-Options")
    for path, status in (("/", 200), ("/metrics", 200), ("/none", 404)):
        equal(fixture.get(path, PASSWORD).status, status, path)


def test_health_check_of_the_image(testbed):
    """The health check of the container image works with plain HTTP, with TLS, and with client certificates."""
    policy = "client_auth_type: RequireAndVerifyClientCert, client_ca_file: pki/authority.pem"
    fixture = Fixture(testbed, SERVER + USERS)

    def check_health(port):
        environment = {"PATH": os.environ["PATH"], "METRICS_ADDRPORT": f"127.0.0.1:{port}"}
        script = str(ROOT / "deploy/docker/healthy")
        return subprocess.run(["bash", script], env=environment, capture_output=True, timeout=20).returncode

    equal(fixture.get("/-/healthy").status, 200, "TLS")
    equal(check_health(fixture.observe.metrics_port()), 0, "health with TLS")
    fixture.write(SERVER.replace("}", f", {policy}}}") + USERS)
    until(fixture.tls_error, "client certificates are not required")
    equal(check_health(fixture.observe.metrics_port()), 0, "health with client certificates")
    plain = testbed.observe("plain").ready()
    equal(check_health(plain.metrics_port()), 0, "health with plain HTTP")
    check(check_health(testbed.home.free_port()) != 0, "health of a program that does not run")


def test_reload(testbed):
    """A changed password, certificate or key takes effect without a restart. An invalid change does not: the previous
    configuration stays in force, which is logged once and shown by a metric."""
    fixture = Fixture(testbed, SERVER + USERS)
    equal(fixture.get("/metrics", PASSWORD).status, 200, "first password")

    fixture.write(SERVER + USERS.replace(HASH, CHANGED_HASH))
    until(lambda: fixture.get("/metrics", CHANGED).status == 200, "the password does not change")
    equal(fixture.get("/metrics", PASSWORD).status, 401, "the previous password")

    def serial():
        plain = testbed.home.connect("127.0.0.1", fixture.observe.metrics_port())
        with fixture.tls().wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            return connection.getpeercert()["serialNumber"]

    before = serial()
    renewed = fixture.authority.issue("renewed")
    os.rename(renewed.key, fixture.server.key)
    # The key does not belong to the certificate now.
    until(lambda: fixture.metrics(CHANGED).one("packeteur_web_config_last_reload_successful") == 0, "no failed reload")
    equal(serial(), before, "certificate after a failed reload")
    os.rename(renewed.cert, fixture.server.cert)
    until(lambda: serial() != before, "the certificate does not change")
    equal(fixture.metrics(CHANGED).one("packeteur_web_config_last_reload_successful"), 1, "reload")

    known = len(fixture.observe.log_lines("is invalid"))
    fixture.write("basic_auth_users: {}\nnonsense: 1\n")
    begin = time.monotonic()
    # Several checks of the files.
    while time.monotonic() < begin + 3.5:
        equal(fixture.get("/metrics", CHANGED).status, 200, "password after an invalid change")
        equal(fixture.get("/metrics").status, 401, "no password after an invalid change")
    lines = fixture.observe.log_lines("is invalid: the previous one stays in force")
    equal(len(lines) - known, 1, f"log lines about the invalid configuration: {lines}")
    check("web.yml:2: `nonsense` is not a valid key" in lines[-1], lines[-1])
    fixture.write(SERVER + USERS)
    until(lambda: fixture.get("/metrics", PASSWORD).status == 200, "the configuration is not reloaded")


def test_reload_does_not_open_the_port(testbed):
    """A configuration that is emptied or cut off, which is valid, does not remove TLS and the password. A change takes
    effect after a single connection."""
    fixture = Fixture(testbed, SERVER + USERS)
    for text in ("", "# disk full\n", SERVER, USERS, SERVER + "basic_auth_users:\n"):
        fixture.write(text)
        until(
            lambda: fixture.metrics().one("packeteur_web_config_last_reload_successful") == 0,
            f"{text!r} is not noticed",
        )
        equal(fixture.get("/metrics").status, 401, f"no password after {text!r}")
        fixture.write(SERVER + USERS)
        until(
            lambda: fixture.metrics().one("packeteur_web_config_last_reload_successful") == 1,
            f"no reload after {text!r}",
        )
    for missing, times in (("tls_server_config", 3), ("basic_auth_users", 2)):
        lines = fixture.observe.log_lines(f"`{missing}` is missing, and in force")
        equal(len(lines), times, f"log lines about {missing}: {lines}")

    def reloads():
        return len(fixture.observe.log_lines("web configuration reloaded"))

    before = reloads()
    fixture.write(SERVER + USERS.replace(HASH, CHANGED_HASH))
    # Not within the second after the last connection, in which the files are not checked.
    time.sleep(1)
    equal(fixture.get("/-/healthy").status, 200, "health")
    until(lambda: reloads() > before, "a change does not take effect without a second connection")
    equal(fixture.get("/metrics", CHANGED).status, 200, "the changed password")


def test_invalid_configurations(testbed):
    """File, line, reason and remedy; exit code 64; nothing secret in the message."""
    authority = Authority(testbed.path("pki"))
    authority.issue("server")
    other = authority.issue("other")
    authority.issue("expired", LONG_AGO, PAST)
    open_key = authority.issue("open").key
    os.chmod(open_key, 0o644)
    path = testbed.path("web.yml")
    tls = "tls_server_config:\n  cert_file: pki/{}.pem\n  key_file: pki/{}.key\n"
    for text, line, reason in (
        ("tls_server_config: [", None, "is not valid YAML"),
        ("# comment\nbasic_auth_user: {}\n", 2, "`basic_auth_user` is not a valid key (use `tls_server_config`"),
        (
            "tls_server_config:\n  cert_file: x\n  key_file: y\n  ciphers: z\n",
            4,
            "`ciphers` is not a valid key in tls_",
        ),
        (f"basic_auth_users:\n  a: '{HASH}'\n  b: hunter2\n", 3, "the password of user `b` is not a bcrypt hash"),
        (tls.format("none", "server"), 2, "pki/none.pem` cannot be read: No such file or directory"),
        (tls.format("server", "other"), 3, "pki/other.key` is not the key of the certificate in `cert_file`"),
        (tls.format("expired", "expired"), 2, "pki/expired.pem` expired at 2020-01-01T00:00:00Z (renew"),
        (tls.format("open", "open"), 3, "pki/open.key` can be read or written by every user of this host"),
        (tls.format("open", "open"), 3, "mode is 0644 (run `chmod 600`"),
    ):
        testbed.write("web.yml", text.encode())
        done = subprocess.run(
            [PCKTR, "--mode=observe", "--device=lo", "--metrics-addrport=127.0.0.1:0", f"--web-config-file={path}"],
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=20,
        )
        output = done.stdout + done.stderr
        equal(done.returncode, 64, f"exit code with {text}: {output}")
        place = f"WEB_CONFIG_FILE: {path}:{line}: " if line else f"WEB_CONFIG_FILE: {path}:"
        check(place in output and reason in output and "(" in output, f"{text}: {output}")
        with open(other.key, encoding="ascii") as key:
            secrets = [HASH, "hunter2", key.read().splitlines()[1]]
        check(not any(secret in output for secret in secrets), f"a secret is in {output}")


def test_silent_clients_with_tls(testbed):
    """Clients that begin no handshake, and clients that begin no request after it, do not delay others."""
    fixture = Fixture(testbed, SERVER + USERS)
    port = fixture.observe.metrics_port()
    silent = [testbed.home.connect("127.0.0.1", port) for _ in range(100)]
    context = fixture.tls()
    silent += [
        context.wrap_socket(testbed.home.connect("127.0.0.1", port), server_hostname="127.0.0.1") for _ in range(100)
    ]
    for _ in range(3):
        begin = time.monotonic()
        equal(fixture.get("/-/healthy").status, 200, "health")
        equal(fixture.get("/metrics", PASSWORD).status, 200, "scrape")
        took = time.monotonic() - begin
        check(took < 2, f"two answers took {took:.2f} s")
    for client in silent:
        client.close()


def test_password_checks_delay_nobody(testbed):
    """While slow checks of passwords run, health checks and scrapes with a known password are answered."""
    text = f"basic_auth_users: {{prometheus: '{HASH}', slow: '{SLOW_HASH}'}}\n"
    fixture = Fixture(testbed, text)
    get = fixture.observe.get
    equal(get("/metrics", headers=basic(PASSWORD)).status, 200, "first scrape")
    port = fixture.observe.metrics_port()
    request = f"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: {basic('wrong')['Authorization']}\r\n\r\n"
    guesses = [testbed.home.connect("127.0.0.1", port) for _ in range(4)]
    for guess in guesses:
        guess.sendall(request.encode())
    begin = time.monotonic()
    equal(get("/-/healthy").status, 200, "health")
    equal(get("/metrics", headers=basic(PASSWORD)).status, 200, "scrape with a known password")
    took = time.monotonic() - begin
    guesses[-1].settimeout(60)
    check(guesses[-1].recv(100).startswith(b"HTTP/1.1 401"), "a wrong password")
    checked = time.monotonic() - begin
    check(took < checked / 4, f"answers took {took:.2f} s, the checks {checked:.2f} s")
    for guess in guesses:
        guess.close()
