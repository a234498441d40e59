"""Packets and capture files, made here: the same ones each time."""

import random
import socket
import struct

# 2023-11-14 22:13:20 UTC.
BEGIN = 1_700_000_000 * 10**9

FILE_HEADER = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262_144, 1)

# Records that are made one by one. The rest of a file repeats them with other times.
DISTINCT = 20_000

MACS = bytes.fromhex("020000000002020000000001")


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet_ipv4(protocol, source, target, payload):
    """A frame. Addresses are numbers."""
    head = struct.pack("!BBHHHBBHII", 0x45, 0, 20 + len(payload), 0, 0x4000, 64, protocol, 0, source, target)
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return MACS + b"\x08\x00" + head + payload


def udp(source, target, size, data=b"", ports=(4000, 5000)):
    """A frame of `size` bytes, of which the first ones of its payload are `data`."""
    length = size - 14 - 20
    body = struct.pack("!HHHH", *ports, length, 0) + data
    return ethernet_ipv4(17, source, target, body.ljust(length, b"\x5a"))


def tcp(source, target, ports, seq, ack, flags, size=0):
    """A frame with a TCP segment of `size` bytes. Its check sequence is left to the device, as on a host that sends."""
    head = struct.pack("!HHIIBBHHH", *ports, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, 5 << 4, flags, 64_240, 0, 0)
    return ethernet_ipv4(6, source, target, head + b"\x5a" * size)


def address(text):
    return struct.unpack("!I", socket.inet_aton(text))[0]


def small(rng):
    return rng.randint(64, 128)


def mix(rng):
    """The simple Internet mix: 64, 576 and 1500 bytes, 7 to 4 to 1."""
    return rng.choices((64, 576, 1500), (7, 4, 1))[0]


SIZES = {"small": small, "mix": mix}


def write_traffic(path, sizes, count, index=0, sources=1, step=1000):
    """A file of `count` UDP packets. Of many sources whose packets come in no regular turn, this is number `index`; all
    together make one packet in `step` nanoseconds."""
    rng = random.Random(index)
    frames, size_of = [], SIZES[sizes]
    for number in range(min(count, DISTINCT)):
        source = address("10.0.0.0") + index * 256 + number % 200
        frames.append(udp(source, address("10.1.0.0") + number % 1000, size_of(rng)))
    write_repeated(path, frames, count, step * sources, rng)


def write_repeated(path, frames, count, step, rng=None):
    """A file of `count` packets, of these frames again and again; one in each `step` nanoseconds, in order."""
    block, places = bytearray(), []
    for frame in frames:
        places.append(len(block))
        block += struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame
    jitter = [rng.randrange(step) if rng else 0 for _ in range(977)]
    put = struct.Struct("<II").pack_into
    with open(path, "wb", buffering=1 << 20) as file:
        file.write(FILE_HEADER)
        for first in range(0, count, len(frames)):
            here = min(len(frames), count - first)
            for at in range(here):
                number = first + at
                put(block, places[at], *divmod(BEGIN + number * step + jitter[number % 977], 10**9))
            file.write(block if here == len(frames) else block[: places[here]])


def write_packets(path, frames, step):
    """A file of these frames, each once, one in each `step` nanoseconds."""
    pack, time = struct.Struct("<IIII").pack, BEGIN
    with open(path, "wb", buffering=1 << 20) as file:
        file.write(FILE_HEADER)
        for frame in frames:
            file.write(pack(*divmod(time, 10**9), len(frame), len(frame)) + frame)
            time += step
