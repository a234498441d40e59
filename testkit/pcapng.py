"""Reads and writes the parts of pcapng (draft-ietf-opsawg-pcapng) that the tests need."""

import struct
from dataclasses import dataclass, field

from .outcome import Failed
from .pcap import Packet

MAGIC = b"\x0a\x0d\x0d\x0a"
SECTION, INTERFACE, SIMPLE, STATISTICS, ENHANCED = 0x0A0D0D0A, 1, 3, 5, 6
IF_NAME, IF_DESCRIPTION, IF_TSRESOL, IF_FILTER, IF_TSOFFSET = 2, 3, 9, 11, 14


@dataclass
class Interface:
    """An interface of a parsed file."""

    link_type: int
    snaplen: int
    options: dict

    @property
    def name(self):
        return self.options.get(IF_NAME, b"").decode()

    @property
    def description(self):
        return self.options.get(IF_DESCRIPTION, b"").decode()

    @property
    def filter(self):
        return self.options.get(IF_FILTER, b"\0")[1:].decode()

    def nanoseconds(self, ticks):
        resolution = self.options.get(IF_TSRESOL, b"\6")[0]
        per_second = 1 << (resolution & 0x7F) if resolution & 0x80 else 10**resolution
        return ticks * 1_000_000_000 // per_second


@dataclass
class Capture:
    """A parsed file. `statistics` has the options of each interface's last statistics block."""

    packets: list = field(default_factory=list)
    interfaces: list = field(default_factory=list)
    statistics: dict = field(default_factory=dict)


def parse(data):
    """Parses a little-endian file of one section. An incomplete last block is ignored."""
    capture, at = Capture(), 0
    while at + 12 <= len(data):
        kind, length = struct.unpack_from("<II", data, at)
        if length % 4 or length < 12:
            raise Failed(f"not a valid pcapng block at offset {at}")
        if at + length > len(data):
            break
        if struct.unpack_from("<I", data, at + length - 4)[0] != length:
            raise Failed(f"the two lengths of the block at offset {at} differ")
        body = data[at + 8 : at + length - 4]
        if kind == INTERFACE:
            link_type, snaplen = struct.unpack_from("<HxxI", body)
            capture.interfaces.append(Interface(link_type, snaplen, options(body[8:])))
        elif kind == ENHANCED:
            number, high, low, captured, original = struct.unpack_from("<IIIII", body)
            interface = capture.interfaces[number]
            time = interface.nanoseconds(high << 32 | low)
            content = body[20 : 20 + captured]
            capture.packets.append(Packet(time, original, content, interface.link_type, number))
        elif kind == STATISTICS:
            number = struct.unpack_from("<I", body)[0]
            found = options(body[12:])
            capture.statistics[number] = {
                code: struct.unpack("<Q", value)[0] for code, value in found.items() if len(value) == 8
            }
        at += length
    return capture


def options(data):
    found, at = {}, 0
    while at + 4 <= len(data):
        code, length = struct.unpack_from("<HH", data, at)
        if code == 0:
            break
        found[code] = data[at + 4 : at + 4 + length]
        at += 4 + padded(length)
    return found


def padded(length):
    return length + -length % 4


class Writer:
    """Writes a file block by block, in either byte order."""

    def __init__(self, order="<"):
        self.order = order
        self.parts = []
        self.section()

    def bytes(self):
        return b"".join(self.parts)

    def pack(self, layout, *values):
        return struct.pack(self.order + layout, *values)

    def block(self, kind, body):
        body += bytes(-len(body) % 4)
        length = self.pack("I", len(body) + 12)
        self.parts.append(self.pack("I", kind) + length + body + length)

    def option(self, code, value):
        return self.pack("HH", code, len(value)) + value + bytes(-len(value) % 4)

    def section(self):
        """Begins a section. Its interfaces are numbered from 0."""
        self.block(SECTION, self.pack("IHHq", 0x1A2B3C4D, 1, 0, -1))

    def interface(self, link_type, name=None, resolution=None, offset=None, snaplen=262144):
        """Adds an interface. `resolution` is the byte of `if_tsresol`, `offset` the seconds of `if_tsoffset`."""
        body = self.pack("HHI", link_type, 0, snaplen)
        if name is not None:
            body += self.option(IF_NAME, name.encode())
        if resolution is not None:
            body += self.option(IF_TSRESOL, bytes([resolution]))
        if offset is not None:
            body += self.option(IF_TSOFFSET, self.pack("q", offset))
        self.block(INTERFACE, body + self.option(0, b""))

    def packet(self, interface, ticks, data, original=None):
        original = len(data) if original is None else original
        head = self.pack("IIIII", interface, ticks >> 32, ticks & 0xFFFFFFFF, len(data), original)
        self.block(ENHANCED, head + data)

    def simple_packet(self, data):
        self.block(SIMPLE, self.pack("I", len(data)) + data)
