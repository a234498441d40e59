"""Reads and writes classic pcap in all its variants (draft-ietf-opsawg-pcap, sections 4 and 5)."""

import struct
from typing import NamedTuple

from .outcome import Failed

MICROSECONDS = 0xA1B2C3D4
NANOSECONDS = 0xA1B23C4D
# Written by a patched libpcap: record headers have eight more bytes.
MODIFIED = 0xA1B2CD34

UNITS = {MICROSECONDS: 1000, NANOSECONDS: 1, MODIFIED: 1000}


class Packet(NamedTuple):
    """A packet: its capture time in nanoseconds, its length on the wire, and its captured bytes."""

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


class Header(NamedTuple):
    """What a file's header says, and the layout of record headers that follows from it."""

    magic: int
    snaplen: int
    link_type: int
    record: struct.Struct


def parse_header(data):
    for order in "<>":
        magic = struct.unpack_from(order + "I", data)[0]
        if magic in UNITS:
            break
    else:
        raise Failed(f"not a pcap file: it begins with {data[:8]!r}")
    snaplen, link_type = struct.unpack_from(order + "II", data, 16)
    record = struct.Struct(order + ("IIII8x" if magic == MODIFIED else "IIII"))
    return Header(magic, snaplen, link_type & 0x03FFFFFF, record)


def read_packets(data):
    """Yields the packets of a file. An incomplete last record is ignored."""
    header, at = parse_header(data), 24
    unit, record = UNITS[header.magic], header.record
    while at + record.size <= len(data):
        seconds, fraction, captured, original = record.unpack_from(data, at)
        if captured > 262144 or fraction * unit >= 1_000_000_000:
            raise Failed(f"not a valid pcap record at offset {at}")
        begin, end = at + record.size, at + record.size + captured
        if end > len(data):
            break
        time = seconds * 1_000_000_000 + fraction * unit
        yield Packet(time, original, data[begin:end], header.link_type)
        at = end


def parse(data):
    """Parses a file. Fewer bytes than a header are a file without packets."""
    if len(data) < 24:
        return Capture([], 1, 0, 0)
    header = parse_header(data)
    return Capture(list(read_packets(data)), header.link_type, header.snaplen, header.magic)


def encode(packets, magic=NANOSECONDS, order="<", link_type=1, snaplen=262144):
    """A file of any variant."""
    unit = UNITS[magic]
    parts = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snaplen, link_type)]
    for packet in packets:
        seconds, nanos = divmod(packet.time, 1_000_000_000)
        parts.append(struct.pack(order + "IIII", seconds, nanos // unit, len(packet.data), packet.original))
        if magic == MODIFIED:
            parts.append(struct.pack(order + "IHBx", 2, 0x0800, 4))
        parts.append(packet.data)
    return b"".join(parts)
