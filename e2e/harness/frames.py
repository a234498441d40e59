"""Packets made by hand: sound ones, of sizes and kinds that one chooses."""

import socket
import struct

from .pcap import Packet

ETHERNET, RAW_IP, LINUX_SLL2 = 1, 101, 276

# Something to cut payloads from.
PATTERN = bytes(range(256)) * 257

# 2023-11-14 22:13:20 UTC, and some nanoseconds.
BEGIN = 1_700_000_000_123_456_789


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1]))
    if len(data) & 1:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(protocol, payload, source, target):
    """An IPv4 packet."""
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0x4000, 64, protocol, 0) + addresses
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ping4(source, target):
    """An IPv4 packet with an ICMP echo request in it."""
    icmp = struct.pack("!BBHHH", 8, 0, 0, 1, 1)
    return ipv4(1, icmp[:2] + struct.pack("!H", checksum(icmp)) + icmp[4:], source, target)


def udp4(payload, source="192.0.2.1", target="198.51.100.2", ports=(5353, 5354)):
    """An IPv4 packet with UDP in it."""
    return ipv4(17, struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload, source, target)


def udp6(payload, source="2001:db8::1", target="2001:db8::2", ports=(5353, 5354)):
    """An IPv6 packet with UDP in it."""
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
    length = 8 + len(payload)
    pseudo = addresses + struct.pack("!IxxxB", length, 17)
    udp = struct.pack("!HHHH", *ports, length, 0) + payload
    udp = udp[:6] + struct.pack("!H", checksum(pseudo + udp) or 0xFFFF) + udp[8:]
    return struct.pack("!IHBB", 6 << 28, length, 17, 64) + addresses + udp


def ethernet(packet):
    """An Ethernet frame around an IP packet."""
    kind = 0x86DD if packet[0] >> 4 == 6 else 0x0800
    return bytes.fromhex("020000000002020000000001") + struct.pack("!H", kind) + packet


def numbered(number, size):
    """A payload of `size` bytes, from 8 to 65000, that tells its number."""
    begin = number & 0xFF
    return struct.pack("!Q", number) + PATTERN[begin : begin + size - 8]


def frame(number, size=64):
    """An Ethernet frame that tells its number; one in four is IPv6."""
    payload = numbered(number, size)
    return ethernet(udp6(payload) if number % 4 == 3 else udp4(payload))


def packets(count, size=64, step=1_000_007, begin=BEGIN):
    """So many packets on Ethernet, `step` nanoseconds apart, of sizes around `size`."""
    found = []
    for number in range(count):
        data = frame(number, size + number % 23)
        found.append(Packet(begin + number * step, len(data), data))
    return found
