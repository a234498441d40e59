"""Builds packets of chosen kinds and sizes. Addresses are packed: see [`address`]."""

import socket
import struct

from .pcap import Packet

ETHERNET, RAW_IP, LINUX_SLL2 = 1, 101, 276

TCP, UDP = 6, 17

# Payloads are cut out of this.
PATTERN = bytes(range(256)) * 257

# 2023-11-14 22:13:20 UTC, and some nanoseconds.
BEGIN = 1_700_000_000_123_456_789

MACS = bytes.fromhex("020000000002020000000001")


def address(text):
    """A packed IPv4 or IPv6 address."""
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


CLIENT4, SERVER4 = address("192.0.2.1"), address("198.51.100.2")
CLIENT6, SERVER6 = address("2001:db8::1"), address("2001:db8::2")


def checksum(data):
    """The Internet checksum (RFC 1071)."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1]))
    if len(data) & 1:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(protocol, payload, source=CLIENT4, target=SERVER4):
    """An IPv4 packet."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0x4000, 64, protocol, 0) + source + target
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ping4(source, target):
    """An ICMP echo request."""
    icmp = struct.pack("!BBHHH", 8, 0, 0, 1, 1)
    return ipv4(1, icmp[:2] + struct.pack("!H", checksum(icmp)) + icmp[4:], source, target)


def udp4(payload, source=CLIENT4, target=SERVER4, ports=(5353, 5354)):
    """An IPv4 packet with a UDP datagram, without a UDP checksum."""
    return ipv4(UDP, struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload, source, target)


def tcp4(source, target, ports, seq, ack, flags, payload=b""):
    """An IPv4 packet with a TCP segment. Its checksum is 0, as on a host whose device computes it."""
    head = struct.pack("!HHIIBBHHH", *ports, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, 5 << 4, flags, 64_240, 0, 0)
    return ipv4(TCP, head + payload, source, target)


def udp6(payload, source=CLIENT6, target=SERVER6, ports=(5353, 5354)):
    """An IPv6 packet with a UDP datagram."""
    length = 8 + len(payload)
    pseudo = source + target + struct.pack("!IxxxB", length, UDP)
    udp = struct.pack("!HHHH", *ports, length, 0) + payload
    udp = udp[:6] + struct.pack("!H", checksum(pseudo + udp) or 0xFFFF) + udp[8:]
    return struct.pack("!IHBB", 6 << 28, length, UDP, 64) + source + target + udp


def ethernet(packet):
    """An Ethernet frame with an IP packet."""
    return MACS + (b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00") + packet


def numbered(number, size):
    """A payload of `size` bytes, 8 to 65000, that begins with a number."""
    begin = number & 0xFF
    return struct.pack("!Q", number) + PATTERN[begin : begin + size - 8]


def frame(number, size=64):
    """An Ethernet frame with a numbered UDP payload of `size` bytes. One in four is IPv6."""
    payload = numbered(number, size)
    return ethernet(udp6(payload) if number % 4 == 3 else udp4(payload))


def packets(count, size=64, step=1_000_007, begin=BEGIN):
    """Captured Ethernet packets, `step` nanoseconds apart, of payloads around `size` bytes."""
    captured = []
    for number in range(count):
        data = frame(number, size + number % 23)
        captured.append(Packet(begin + number * step, len(data), data))
    return captured
