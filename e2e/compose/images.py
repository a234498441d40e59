"""The images: made by the Dockerfile, upon official images where a registry can be reached, else upon one made here."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from e2e.compose.engine import run
from testkit.outcome import Skipped, check

ROOT = Path(__file__).resolve().parents[2]

PCKTR = "packeteur-e2e"
DEMO = "packeteur-e2e-demo"
PROMETHEUS = "packeteur-e2e-prometheus"
BASE = "packeteur-e2e-base"

# What the Dockerfile installs: with it in the base there is nothing left to fetch.
PACKAGES = ["libcap2-bin", "libpcap0.8", "libzmq5", "python3-minimal", "tcpdump"]

# For a registry to answer.
PULL = 60

BUILD_STAGE = re.compile(r"^FROM \$\{BUILD\} AS build\n.*?(?=^FROM )", re.MULTILINE | re.DOTALL)
HOST_STAGE = "FROM ${BASE} AS build\nCOPY pcktr /src/target/release/pcktr\n\n"


def build():
    """Builds the image and the one of the demonstration. Answers how."""
    if official():
        for target, image in (("pcktr", PCKTR), ("demo", DEMO)):
            run("docker", "build", "--target", target, "-t", image, ROOT, timeout=1800)
        return "the Dockerfile, upon Docker's official images"
    make_base()
    with tempfile.TemporaryDirectory() as context:
        # The stage that compiles needs an image with Rust. Here the host has compiled; all the rest is the Dockerfile's.
        dockerfile, replaced = BUILD_STAGE.subn(HOST_STAGE, (ROOT / "Dockerfile").read_text())
        check(replaced == 1, "the Dockerfile has no build stage of the form that is known here")
        Path(context, "Dockerfile").write_text(dockerfile)
        shutil.copytree(ROOT / "deploy/docker", Path(context, "deploy/docker"))
        program = os.environ.get("PCKTR", str(ROOT / "target/release/pcktr"))
        if not os.access(program, os.X_OK):
            raise Skipped(f"there is no {program}: cargo build --release, or set PCKTR")
        run("strip", "--strip-debug", "-o", Path(context, "pcktr"), program)
        for target, image in (("pcktr", PCKTR), ("demo", DEMO)):
            arguments = ["--network", "host", "--build-arg", f"BASE={BASE}", "--target", target, "-t", image]
            run("docker", "build", *arguments, context, timeout=600)
    return "the Dockerfile without its build stage, upon an image by debootstrap"


def official():
    """Whether the images that the Dockerfile begins with are to be had."""
    try:
        for image in ("debian:bookworm-slim", "rust:1-bookworm"):
            answer = subprocess.run(["docker", "pull", "-q", image], capture_output=True, timeout=PULL * 10)
            if answer.returncode != 0:
                return False
    except subprocess.TimeoutExpired:
        return False
    return True


def make_base():
    """An image with the host's release of Debian, which its programs were linked for."""
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        raise Skipped("no registry can be reached, and without root and debootstrap there is no other base image")
    release = run("sh", "-c", '. /etc/os-release && echo "$VERSION_CODENAME"').strip()
    # It is kept for as long as this file makes it in the same way.
    key = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    archive = ROOT / "target/e2e" / f"base-{release}-{key}.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            packages = ",".join(PACKAGES)
            run("debootstrap", "--variant=minbase", f"--include={packages}", release, folder, timeout=600)
            # As the official slim image is: without documents, and without apt's caches.
            for name in ("var/cache/apt/archives", "usr/share/doc", "usr/share/man", "usr/share/locale"):
                shutil.rmtree(f"{folder}/{name}")
            lean = 'Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";\n'
            Path(folder, "etc/apt/apt.conf.d/lean").write_text(lean)
            run("tar", "-C", folder, "-cf", f"{archive}.part", ".")
        os.replace(f"{archive}.part", archive)
    run("docker", "import", archive, BASE)


def build_prometheus():
    """Debian's Prometheus in the place of the official image: it is called in the same way."""
    program = shutil.which("prometheus")
    if program is None:
        raise Skipped("prometheus is not installed")
    with tempfile.TemporaryDirectory() as context:
        shutil.copy(program, Path(context, "prometheus"))
        arguments = '"--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/tmp/prometheus"'
        Path(context, "Dockerfile").write_text(
            f'FROM {DEMO}\nCOPY prometheus /bin/prometheus\nENTRYPOINT ["/bin/prometheus", {arguments}]\nHEALTHCHECK NONE\n'
        )
        run("docker", "build", "-t", PROMETHEUS, context)
