"""Writes a capture file to standard output, then the packets of another, at a steady rate, again and again.

    python3 -m bench.feeder FILE REPEATED_FILE PACKETS_PER_SECOND

The packets of the second file have the same length. It prints `fed` on standard error after the first file. The pipe
stays open, so the reader keeps running with a full table.
"""

import shutil
import struct
import sys
import time

FILE_HEADER, RECORD_HEADER = 24, 16

# Seconds between two writes.
INTERVAL = 0.01


def feed(first, repeated, rate):
    with open(first, "rb") as file:
        shutil.copyfileobj(file, sys.stdout.buffer, 1 << 20)
    sys.stdout.buffer.flush()
    print("fed", file=sys.stderr, flush=True)
    with open(repeated, "rb") as file:
        records = file.read()[FILE_HEADER:]
    length = RECORD_HEADER + struct.unpack_from("<I", records, 8)[0]
    chunk = max(int(rate * INTERVAL), 1) * length
    due, at = time.monotonic(), 0
    while True:
        time.sleep(max(due - time.monotonic(), 0))
        due = max(due + INTERVAL, time.monotonic() - INTERVAL)
        part = records[at : at + chunk]
        sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
        at = 0 if at + chunk >= len(records) else at + chunk


if __name__ == "__main__":
    feed(sys.argv[1], sys.argv[2], float(sys.argv[3]))
