"""Sends UDP datagrams with known content, a thousand per second, either as they are or inside TZSP.

    python3 send.py TAG FIRST COUNT HOST PORT [tzsp]

The tests use `content` too, to check what arrives. This runs with the modules of python3-minimal.
"""

import socket
import struct
import sys
import time

# The discard port (RFC 863).
PORT = 9
# Payload lengths: from one that Ethernet has to pad, to one that fits the MTU of 1500 with the headers of TZSP.
SHORTEST, LONGEST = 12, 1400


def content(tag, number):
    """The payload with this tag and number. Each is different."""
    head = f"#{tag} {number:06d} ".encode()
    length = SHORTEST + number * 37 % (LONGEST - SHORTEST)
    return (head * (length // len(head) + 1))[: max(length, len(head))]


def frame(payload):
    """An Ethernet frame with the payload in UDP and IPv4."""
    udp = struct.pack("!HHHH", PORT, PORT, 8 + len(payload), 0)
    ip = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 0, 0, 64, 17, 0, b"\xc0\x00\x02\x01", b"\xc0\x00\x02\x02"
    )
    return bytes(12) + b"\x08\x00" + ip + udp + payload


def main(tag, first, count, host, port, *tzsp):
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    # Resolve the name only once.
    target = (socket.gethostbyname(host), int(port))
    for number in range(int(first), int(first) + int(count)):
        datagram = content(tag, number)
        out.sendto(b"\x01\x00\x00\x01\x01" + frame(datagram) if tzsp else datagram, target)
        time.sleep(0.001)


if __name__ == "__main__":
    main(*sys.argv[1:])
