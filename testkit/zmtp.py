"""The part of ZeroMQ's wire protocol that pushes and pulls messages, without libzmq.

https://rfc.zeromq.org/spec/23/ (ZMTP 3.0), with the NULL mechanism.
"""

import struct


def greeting(version=3, mechanism=b"NULL"):
    """The first 64 bytes of each side."""
    return b"\xff" + bytes(8) + b"\x7f" + bytes([version, 0]) + mechanism.ljust(20, b"\0") + b"\0" + bytes(31)


GREETING = greeting()

MORE, LONG, COMMAND = 1, 2, 4


def frame_header(length, flags=0):
    """The bytes before a body of this length."""
    if length < 256:
        return bytes([flags, length])
    return bytes([flags | LONG]) + struct.pack("!Q", length)


def frame(body, flags=0):
    return frame_header(len(body), flags) + body


def command(name, body=b""):
    return frame(bytes([len(name)]) + name + body, COMMAND)


def ready(socket_type):
    """The command that completes the handshake."""
    kind = b"\x0bSocket-Type" + struct.pack("!I", len(socket_type)) + socket_type
    return command(b"READY", kind)


def receive(connection, length):
    """Exactly that many bytes."""
    data = b""
    while len(data) < length:
        some = connection.recv(length - len(data))
        if not some:
            raise ConnectionError("the peer closed the connection")
        data += some
    return data


class Push:
    """A connection to a PULL socket."""

    def __init__(self, connection, socket_type=b"PUSH"):
        self.connection = connection
        connection.sendall(GREETING)
        receive(connection, len(GREETING))
        connection.sendall(ready(socket_type))
        _, length = receive(connection, 2)
        receive(connection, length)

    def send(self, *parts):
        """Sends a message of one or more parts."""
        for part in parts[:-1]:
            self.connection.sendall(frame(part, MORE))
        self.connection.sendall(frame(parts[-1]))

    def close(self):
        self.connection.close()


def accept_push(connection, then=b""):
    """Completes the handshake with a PUSH socket that has connected. Sends `then` together with the last command."""
    connection.sendall(GREETING)
    receive(connection, len(GREETING))
    _, length = receive(connection, 2)
    receive(connection, length)
    connection.sendall(ready(b"PULL") + then)


def is_closed(connection):
    """Whether the other side closes the connection, perhaps after sending something."""
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True
