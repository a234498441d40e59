"""Sends packets with known content, a thousand a second: UDP, or UDP in Ethernet in TZSP.

    python3 send.py TAG FIRST COUNT HOST PORT [tzsp]

Its datagrams are what `content` says: the test makes the same to compare. Runs with what python3-minimal has.
"""

import socket
import struct
import sys
import time

# What is sent to it is discarded (RFC 863), if it is not refused.
PORT = 9
# Lengths from a datagram that Ethernet has to pad up to one that just fits the MTU of 1500, TZSP's headers included.
SHORTEST, LONGEST = 12, 1400


def content(tag, number):
    """The datagram of this number: it begins with its tag and number, and no two are alike."""
    head = f"#{tag} {number:06d} ".encode()
    length = SHORTEST + number * 37 % (LONGEST - SHORTEST)
    return (head * (length // len(head) + 1))[: max(length, len(head))]


def frame(payload):
    """It, in UDP, in IPv4, in Ethernet."""
    udp = struct.pack("!HHHH", PORT, PORT, 8 + len(payload), 0)
    ip = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 0, 0, 64, 17, 0, b"\xc0\x00\x02\x01", b"\xc0\x00\x02\x02"
    )
    return bytes(12) + b"\x08\x00" + ip + udp + payload


def main(tag, first, count, host, port, *tzsp):
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    # Once: a resolver in the middle would take longer than all the rest.
    target = (socket.gethostbyname(host), int(port))
    for number in range(int(first), int(first) + int(count)):
        datagram = content(tag, number)
        out.sendto(b"\x01\x00\x00\x01\x01" + frame(datagram) if tzsp else datagram, target)
        time.sleep(0.001)


if __name__ == "__main__":
    main(*sys.argv[1:])
