"""The directory for input and output of a section."""

import itertools
import os
import shutil
import tempfile


class WorkDirectory:
    """A temporary directory. Use it as a context manager: it is deleted at the end."""

    def __init__(self, parent):
        self.path = tempfile.mkdtemp(prefix="pcktr-bench-", dir=parent)
        self.numbers = itertools.count()
        self.inputs = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)

    def name(self, extension):
        """The path of a new file."""
        return os.path.join(self.path, f"{next(self.numbers)}.{extension}")

    def directory(self):
        """A new directory."""
        path = self.name("d")
        os.mkdir(path)
        return path

    def input(self, write, *arguments):
        """The path of the file that `write(path, *arguments)` makes. Equal arguments give the same file. It has just
        been written, so reading it does not wait for the disk."""
        key = (write, arguments)
        if key not in self.inputs:
            path = self.name("pcap")
            write(path, *arguments)
            self.inputs[key] = path
        return self.inputs[key]

    def delete(self, *paths):
        """Deletes input files that are no longer needed."""
        for path in paths:
            self.inputs = {key: made for key, made in self.inputs.items() if made != path}
            os.unlink(path)
