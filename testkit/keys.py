"""Keys of the relay, made by the program itself."""

import os
import subprocess
from typing import NamedTuple

from .build import PCKTR
from .outcome import equal
from .pcktr import environment


class Key(NamedTuple):
    """The path of a secret key, and the public key that belongs to it."""

    path: str
    public: str

    def secret(self):
        with open(self.path, encoding="ascii") as file:
            return file.read().strip()


def keygen(path):
    """Runs `MODE=keygen`. Returns exit code, standard output, standard error."""
    done = subprocess.run(
        [PCKTR], env=environment({"mode": "keygen", "key_file": path}), capture_output=True, text=True, timeout=20
    )
    return done.returncode, done.stdout, done.stderr


def make(testbed, name):
    """A new key."""
    path = testbed.path(f"{name}.key")
    code, public, err = keygen(path)
    equal((code, err), (0, ""), "exit code and standard error of MODE=keygen")
    return Key(path, public.strip())


def authorize(path, lines):
    """Replaces a list of keys as editors do. `lines` are texts, or keys and their names."""
    texts = [line if isinstance(line, str) else f"{line[0].public} {line[1]}" for line in lines]
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        file.write("".join(f"{text}\n" for text in texts))
    os.replace(f"{path}.new", path)
