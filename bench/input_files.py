"""Capture files as input, the same each time. Addresses are numbers."""

import random
import struct

from testkit import frames, pcap
from testkit.frames import ethernet, tcp4, udp4

# 2023-11-14 22:13:20 UTC.
BEGIN = 1_700_000_000 * 10**9

FILE_HEADER = pcap.encode([])

# This many records of a file differ. The rest repeats them with other timestamps.
DISTINCT = 20_000


def address(text):
    """An IPv4 address as a number."""
    return int.from_bytes(frames.address(text), "big")


def packed(number):
    return number.to_bytes(4, "big")


def udp(source, target, size, data=b"", ports=(4000, 5000)):
    """A frame of `size` bytes. Its payload begins with `data`."""
    payload = data.ljust(size - 14 - 20 - 8, b"\x5a")
    return ethernet(udp4(payload, packed(source), packed(target), ports))


def tcp(source, target, ports, seq, ack, flags, size=0):
    """A frame with a TCP segment of `size` bytes."""
    return ethernet(tcp4(packed(source), packed(target), ports, seq, ack, flags, b"\x5a" * size))


def small(rng):
    return rng.randint(64, 128)


def mix(rng):
    """The simple Internet mix: 64, 576 and 1500 bytes, 7 to 4 to 1."""
    return rng.choices((64, 576, 1500), (7, 4, 1))[0]


SIZES = {"small": small, "mix": mix}


def write_traffic(path, sizes, count, index=0, sources=1, step=1000):
    """A file of `count` UDP packets: number `index` of `sources` files, whose packets interleave irregularly. Together
    they have one packet in `step` nanoseconds."""
    rng = random.Random(index)
    distinct, size_of = [], SIZES[sizes]
    for number in range(min(count, DISTINCT)):
        source = address("10.0.0.0") + index * 256 + number % 200
        distinct.append(udp(source, address("10.1.0.0") + number % 1000, size_of(rng)))
    write_repeated(path, distinct, count, step * sources, rng)


def write_repeated(path, distinct, count, step, rng=None):
    """A file of `count` packets that repeats these frames, one in `step` nanoseconds, in order."""
    block, places = bytearray(), []
    for frame in distinct:
        places.append(len(block))
        block += struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame
    jitter = [rng.randrange(step) if rng else 0 for _ in range(977)]
    put = struct.Struct("<II").pack_into
    with open(path, "wb", buffering=1 << 20) as file:
        file.write(FILE_HEADER)
        for first in range(0, count, len(distinct)):
            here = min(len(distinct), count - first)
            for at in range(here):
                number = first + at
                put(block, places[at], *divmod(BEGIN + number * step + jitter[number % 977], 10**9))
            file.write(block if here == len(distinct) else block[: places[here]])


def write_frames(path, frames, step):
    """A file of these frames, one in `step` nanoseconds."""
    pack, time = struct.Struct("<IIII").pack, BEGIN
    with open(path, "wb", buffering=1 << 20) as file:
        file.write(FILE_HEADER)
        for frame in frames:
            file.write(pack(*divmod(time, 10**9), len(frame), len(frame)) + frame)
            time += step
