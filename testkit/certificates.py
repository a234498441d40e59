"""Certificates, made with openssl."""

import os
import subprocess
from typing import NamedTuple

from .outcome import Failed, Skipped

CONFIGURATION = """\
[ca]
default_ca = default
[default]
database = {directory}/index
new_certs_dir = {directory}
default_md = sha256
policy = policy
rand_serial = yes
unique_subject = no
[policy]
commonName = supplied
[root]
basicConstraints = critical, CA:TRUE
[leaf]
basicConstraints = CA:FALSE
subjectAltName = DNS:{name}, IP:127.0.0.1
"""

# In the form of openssl: YYYYMMDDHHMMSSZ.
LONG_AGO, PAST, FUTURE = "20000101000000Z", "20200101000000Z", "21200101000000Z"


class Certificate(NamedTuple):
    """The paths of a certificate and its key."""

    cert: str
    key: str


class Authority:
    """A certification authority. It issues certificates for 127.0.0.1 to servers and clients."""

    def __init__(self, directory):
        os.mkdir(directory)
        self.directory = directory
        with open(self._path("index"), "w", encoding="ascii"):
            pass
        key, request = self._request("authority")
        self.own = Certificate(self._path("authority.pem"), key)
        self._sign(request, self.own.cert, "root", ("-selfsign", "-keyfile", key))

    def issue(self, name, begin=PAST, end=FUTURE):
        """A certificate that is valid from `begin` to `end`. Only the owner may read its key."""
        key, request = self._request(name)
        cert = self._path(f"{name}.pem")
        self._sign(request, cert, "leaf", ("-keyfile", self.own.key, "-cert", self.own.cert), name, begin, end)
        return Certificate(cert, key)

    def _path(self, name):
        return os.path.join(self.directory, name)

    def _request(self, name):
        key, request = self._path(f"{name}.key"), self._path(f"{name}.csr")
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key)
        openssl("req", "-new", "-key", key, "-subj", f"/CN={name}", "-out", request)
        return key, request

    def _sign(self, request, cert, extensions, issuer, name="x", begin=PAST, end=FUTURE):
        configuration = self._path("openssl.cnf")
        with open(configuration, "w", encoding="ascii") as file:
            file.write(CONFIGURATION.format(directory=self.directory, name=name))
        arguments = ("-batch", "-notext", "-config", configuration, "-extensions", extensions)
        openssl("ca", *arguments, "-startdate", begin, "-enddate", end, *issuer, "-in", request, "-out", cert)


def openssl(*arguments):
    try:
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        raise Skipped("openssl is not installed") from None
    if done.returncode != 0:
        raise Failed(f"openssl {' '.join(arguments)}: {done.stderr}")
