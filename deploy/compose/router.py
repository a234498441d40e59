"""A router that sends its traffic by TZSP, like the packet sniffer of RouterOS.

    python3 router.py HOST PORT

The traffic is simulated: hosts of a home network use DNS, HTTPS and NTP servers on the Internet.
"""

import random
import socket
import struct
import sys
import time

# Version 1, received packet, Ethernet; then the end tag.
HEADER = bytes([1, 0, 0, 1, 1])

HOME = ["192.168.88.10", "192.168.88.11", "192.168.88.12"]
# Addresses for documentation (RFC 5737), and the multicast address of mDNS (RFC 6762, section 3).
RESOLVER, WEB, CLOCK, MDNS = "192.0.2.53", "198.51.100.80", "203.0.113.123", "224.0.0.251"
TCP, UDP = 6, 17


def frame(source, target, protocol, ports, payload):
    """An Ethernet frame with a TCP segment or a UDP datagram, without valid checksums."""
    if protocol == TCP:
        transport = struct.pack("!HHIIBBHHH", *ports, random.getrandbits(32), 0, 5 << 4, 0x18, 501, 0, 0)
    else:
        transport = struct.pack("!HHHH", *ports, 8 + len(payload), 0)
    length = 20 + len(transport) + len(payload)
    ip = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0x4000, 63, protocol, 0)
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    return bytes(12) + b"\x08\x00" + ip + addresses + transport + payload


def exchange():
    """One request of a host, and the response."""
    host, port = random.choice(HOME), random.randint(32768, 60999)
    server, protocol, service, size = random.choice(
        [(RESOLVER, UDP, 53, 200), (WEB, TCP, 443, 1300), (CLOCK, UDP, 123, 48), (MDNS, UDP, 5353, 0)]
    )
    yield frame(host, server, protocol, (port, service), bytes(random.randint(40, 200)))
    for _ in range(random.randint(1, 4) if size else 0):
        yield frame(server, host, protocol, (service, port), bytes(size))


def main(host, port):
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    while True:
        for packet in exchange():
            try:
                out.sendto(HEADER + packet, (host, int(port)))
            except OSError as error:
                print(f"{host}: {error}", file=sys.stderr)
                time.sleep(1)
        time.sleep(random.uniform(0.05, 0.2))


if __name__ == "__main__":
    main(*sys.argv[1:])
