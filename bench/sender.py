"""Sends frames on a device at a steady rate, in a separate process.

    python3 -m bench.sender DEVICE PACKETS_PER_SECOND SECONDS SIZE

It prints the number of packets that it sent, and the seconds.
"""

import ctypes
import random
import socket
import sys
import time

from bench import input_files

# linux/if_packet.h: bypass the queueing discipline, which only costs time here.
SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20

# Frames per system call.
BATCH = 64


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_char_p), ("len", ctypes.c_size_t)]


class Msghdr(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(Iovec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class Mmsghdr(ctypes.Structure):
    _fields_ = [("header", Msghdr), ("sent", ctypes.c_uint)]


def batches(frames):
    """Frames in batches for `sendmmsg`: headers, their number, and the memory that they point to."""
    made = []
    for first in range(0, len(frames), BATCH):
        part = frames[first : first + BATCH]
        iovecs = (Iovec * len(part))(*(Iovec(frame, len(frame)) for frame in part))
        headers = (Mmsghdr * len(part))()
        for at in range(len(part)):
            headers[at].header.iov = ctypes.pointer(iovecs[at])
            headers[at].header.iovlen = 1
        made.append((headers, len(part), iovecs))
    return made


def send(device, rate, seconds, size):
    rng = random.Random(0)
    sizes = [input_files.small(rng) if size == "small" else int(size) for _ in range(BATCH * 64)]
    frames = [input_files.udp(1 + number % 200, 9, length) for number, length in enumerate(sizes)]
    made = batches(frames)
    libc = ctypes.CDLL(None, use_errno=True)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
        raw.bind((device, 0))
        raw.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        began = time.monotonic()
        sent, wanted = 0, int(rate * seconds)
        while sent < wanted:
            headers, length, _ = made[sent // BATCH % len(made)]
            early = began + sent / rate - time.monotonic()
            if early > 0:
                time.sleep(early)
            done = libc.sendmmsg(raw.fileno(), headers, min(length, wanted - sent), 0)
            if done > 0:
                sent += done
        print(sent, time.monotonic() - began)


if __name__ == "__main__":
    send(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
