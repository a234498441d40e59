"""Classic pcap, every kind of it (draft-ietf-opsawg-pcap, sections 4 and 5), read and written."""

import struct
from typing import NamedTuple

from .outcome import Failed

MICROSECONDS = 0xA1B2C3D4
NANOSECONDS = 0xA1B23C4D
# The kind of a patched libpcap: eight more bytes in front of each packet.
MODIFIED = 0xA1B2CD34

UNITS = {MICROSECONDS: 1000, NANOSECONDS: 1, MODIFIED: 1000}


class Packet(NamedTuple):
    """A packet: when it was captured, in nanoseconds; how long it was on the wire; what was kept of it."""

    time: int
    original: int
    data: bytes
    link_type: int = 1
    interface: int = 0


class Capture(NamedTuple):
    """A capture file."""

    packets: list
    link_type: int
    snaplen: int
    magic: int


def parse(data):
    """Reads a file as far as its records are whole. Nothing at all is a file without packets."""
    if len(data) < 24:
        return Capture([], 1, 0, 0)
    for order in "<>":
        magic = struct.unpack_from(order + "I", data)[0]
        if magic in UNITS:
            break
    else:
        raise Failed(f"no pcap file: it begins with {data[:8]!r}")
    unit = UNITS[magic]
    header = struct.Struct(order + ("IIII8x" if magic == MODIFIED else "IIII"))
    snaplen, link_type = struct.unpack_from(order + "II", data, 16)
    link_type &= 0x03FFFFFF
    packets, at = [], 24
    while at + header.size <= len(data):
        seconds, fraction, captured, original = header.unpack_from(data, at)
        if captured > 262144 or fraction * unit >= 1_000_000_000:
            raise Failed(f"no record at offset {at} of a pcap file")
        begin, end = at + header.size, at + header.size + captured
        if end > len(data):
            break
        time = seconds * 1_000_000_000 + fraction * unit
        packets.append(Packet(time, original, data[begin:end], link_type))
        at = end
    return Capture(packets, link_type, snaplen, magic)


def encode(packets, magic=NANOSECONDS, order="<", link_type=1, snaplen=262144):
    """A file of any kind."""
    unit = UNITS[magic]
    parts = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snaplen, link_type)]
    for packet in packets:
        seconds, nanos = divmod(packet.time, 1_000_000_000)
        parts.append(struct.pack(order + "IIII", seconds, nanos // unit, len(packet.data), packet.original))
        if magic == MODIFIED:
            parts.append(struct.pack(order + "IHBx", 2, 0x0800, 4))
        parts.append(packet.data)
    return b"".join(parts)
