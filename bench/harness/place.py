"""The place where input is made and output is put."""

import itertools
import os
import shutil
import tempfile


class Place:
    """A folder that goes away with the bench."""

    def __init__(self, parent):
        self.path = tempfile.mkdtemp(prefix="pcktr-bench-", dir=parent)
        self.numbers = itertools.count()
        self.made = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)

    def name(self, kind):
        """A new name for a file."""
        return os.path.join(self.path, f"{next(self.numbers)}.{kind}")

    def input(self, make, *arguments):
        """The path of what `make(path, *arguments)` makes; made once for all that want it. It was written just now, so
        nobody waits for the disk."""
        key = (make, arguments)
        if key not in self.made:
            path = self.name("pcap")
            make(path, *arguments)
            self.made[key] = path
        return self.made[key]

    def forget(self, *paths):
        """Frees the room that inputs take."""
        for path in paths:
            self.made = {key: made for key, made in self.made.items() if made != path}
            os.unlink(path)
