"""Builds the images with the Dockerfile, on official base images, or on one made here if no registry is reachable."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from e2e.compose.engine import run
from testkit.build import PCKTR as PROGRAM
from testkit.build import ROOT, need_pcktr
from testkit.outcome import Skipped, check

PCKTR = "packeteur-e2e"
DEMO = "packeteur-e2e-demo"
PROMETHEUS = "packeteur-e2e-prometheus"
BASE = "packeteur-e2e-base"

# What the Dockerfile installs. If the base image has it, nothing is left to download.
PACKAGES = ["libcap2-bin", "libpcap0.8", "libsodium23", "python3-minimal", "tcpdump"]

# Seconds for the download of an image.
PULL_TIMEOUT = 600

BUILD_STAGE = re.compile(r"^FROM \$\{BUILD\} AS build\n.*?(?=^FROM )", re.MULTILINE | re.DOTALL)
HOST_STAGE = "FROM ${BASE} AS build\nCOPY pcktr /src/target/release/pcktr\n\n"


def build():
    """Builds the image and the demo image. Returns a description of how."""
    if pull_official():
        for target, image in (("pcktr", PCKTR), ("demo", DEMO)):
            run("docker", "build", "--target", target, "-t", image, ROOT, timeout=1800)
        return "the Dockerfile, on official base images"
    make_base()
    with tempfile.TemporaryDirectory() as context:
        # The build stage needs an image with Rust. Use the program built on the host instead.
        dockerfile, replaced = BUILD_STAGE.subn(HOST_STAGE, (ROOT / "Dockerfile").read_text())
        check(replaced == 1, "the Dockerfile's build stage was not found")
        Path(context, "Dockerfile").write_text(dockerfile)
        shutil.copytree(ROOT / "deploy/docker", Path(context, "deploy/docker"))
        need_pcktr()
        run("strip", "--strip-debug", "-o", Path(context, "pcktr"), PROGRAM)
        for target, image in (("pcktr", PCKTR), ("demo", DEMO)):
            arguments = ["--network", "host", "--build-arg", f"BASE={BASE}", "--target", target, "-t", image]
            run("docker", "build", *arguments, context, timeout=600)
    return "the Dockerfile without its build stage, on a base image by debootstrap"


def pull_official():
    """Pulls the Dockerfile's base images. Returns whether that worked."""
    try:
        for image in ("debian:bookworm-slim", "rust:1-bookworm"):
            done = subprocess.run(["docker", "pull", "-q", image], capture_output=True, timeout=PULL_TIMEOUT)
            if done.returncode != 0:
                return False
    except subprocess.TimeoutExpired:
        return False
    return True


def make_base():
    """Makes a base image with the host's Debian release, for which the program was linked."""
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        raise Skipped("no registry is reachable, and making a base image needs root and debootstrap")
    release = run("sh", "-c", '. /etc/os-release && echo "$VERSION_CODENAME"').strip()
    # Cached until this file changes.
    key = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    archive = ROOT / "target/e2e" / f"base-{release}-{key}.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            packages = ",".join(PACKAGES)
            run("debootstrap", "--variant=minbase", f"--include={packages}", release, folder, timeout=600)
            # Like the official slim image: without documentation and apt's caches.
            for name in ("var/cache/apt/archives", "usr/share/doc", "usr/share/man", "usr/share/locale"):
                shutil.rmtree(f"{folder}/{name}")
            lean = 'Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";\n'
            Path(folder, "etc/apt/apt.conf.d/lean").write_text(lean)
            run("tar", "-C", folder, "-cf", f"{archive}.part", ".")
        os.replace(f"{archive}.part", archive)
    run("docker", "import", archive, BASE)


def build_prometheus():
    """Builds an image with Debian's Prometheus, which is started like the official image."""
    program = shutil.which("prometheus")
    if program is None:
        raise Skipped("prometheus is not installed")
    with tempfile.TemporaryDirectory() as context:
        shutil.copy(program, Path(context, "prometheus"))
        arguments = '"--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/tmp/prometheus"'
        Path(context, "Dockerfile").write_text(
            f"FROM {DEMO}\nCOPY prometheus /bin/prometheus\nHEALTHCHECK NONE\n"
            f'ENTRYPOINT ["/bin/prometheus", {arguments}]\n'
        )
        run("docker", "build", "-t", PROMETHEUS, context)
