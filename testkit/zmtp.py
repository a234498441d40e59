"""The part of ZeroMQ's wire protocol that pushes messages, without libzmq.

https://rfc.zeromq.org/spec/23/ (ZMTP 3.0), with the NULL mechanism.
"""

import struct

GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)

MORE, LONG, COMMAND = 1, 2, 4


def frame(body, flags=0):
    if len(body) < 256:
        return bytes([flags, len(body)]) + body
    return bytes([flags | LONG]) + struct.pack("!Q", len(body)) + body


def ready(socket_type):
    """The command that completes the handshake."""
    kind = b"\x0bSocket-Type" + struct.pack("!I", len(socket_type)) + socket_type
    return frame(b"\x05READY" + kind, COMMAND)


class Push:
    """A connection to a PULL socket."""

    def __init__(self, connection, socket_type=b"PUSH"):
        self.connection = connection
        connection.sendall(GREETING)
        self._receive(len(GREETING))
        connection.sendall(ready(socket_type))
        _, length = self._receive(2)
        self._receive(length)

    def _receive(self, length):
        data = b""
        while len(data) < length:
            some = self.connection.recv(length - len(data))
            if not some:
                raise ConnectionError("the collector closed the connection")
            data += some
        return data

    def send(self, *parts):
        """Sends a message of one or more parts."""
        for part in parts[:-1]:
            self.connection.sendall(frame(part, MORE))
        self.connection.sendall(frame(parts[-1]))

    def close(self):
        self.connection.close()
