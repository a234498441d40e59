"""Sends frames on a device at a steady rate: a process of its own, so that its work is nobody else's.

    python3 sender.py DEVICE PACKETS_A_SECOND SECONDS SIZE

Says on standard output how many packets it has sent, and in how many seconds.
"""

import ctypes
import os
import random
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from harness import packets  # noqa: E402

# linux/if_packet.h: past the queueing discipline, which would only cost time here.
SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20

# Frames in one system call.
TRAIN = 64


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


def trains(frames):
    """Frames as `sendmmsg` wants them, and what has to stay in memory meanwhile."""
    made = []
    for first in range(0, len(frames), TRAIN):
        part = frames[first : first + TRAIN]
        iovecs = (Iovec * len(part))(*(Iovec(frame, len(frame)) for frame in part))
        headers = (Mmsghdr * len(part))()
        for at in range(len(part)):
            headers[at].header.iov = ctypes.pointer(iovecs[at])
            headers[at].header.iovlen = 1
        made.append((headers, len(part), iovecs))
    return made


def send(device, rate, seconds, size):
    rng = random.Random(0)
    small = [packets.SIZES["small"](rng) if size == "small" else int(size) for _ in range(TRAIN * 64)]
    frames = [packets.udp(1 + number % 200, 9, length) for number, length in enumerate(small)]
    made = trains(frames)
    libc = ctypes.CDLL(None, use_errno=True)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
        raw.bind((device, 0))
        raw.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        began = time.monotonic()
        sent, wanted = 0, int(rate * seconds)
        while sent < wanted:
            headers, length, _ = made[sent // TRAIN % len(made)]
            early = began + sent / rate - time.monotonic()
            if early > 0:
                time.sleep(early)
            done = libc.sendmmsg(raw.fileno(), headers, min(length, wanted - sent), 0)
            if done > 0:
                sent += done
        print(sent, time.monotonic() - began)


if __name__ == "__main__":
    send(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
