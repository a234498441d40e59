"""Feeds a capture file into a pipe, then another at a steady rate, again and again, until it is ended.

    python3 feeder.py FILE GOES_ON PACKETS_A_SECOND

The second file's packets are of one length. On standard error it says `fed` when the first is over. The pipe stays open:
so what reads it stays, with all it knows.
"""

import shutil
import struct
import sys
import time

FILE_HEADER, RECORD_HEADER = 24, 16

# Seconds between two writes.
PACE = 0.01


def feed(first, goes_on, rate):
    with open(first, "rb") as file:
        shutil.copyfileobj(file, sys.stdout.buffer, 1 << 20)
    sys.stdout.buffer.flush()
    print("fed", file=sys.stderr, flush=True)
    with open(goes_on, "rb") as file:
        records = file.read()[FILE_HEADER:]
    length = RECORD_HEADER + struct.unpack_from("<I", records, 8)[0]
    chunk = max(int(rate * PACE), 1) * length
    due, at = time.monotonic(), 0
    while True:
        time.sleep(max(due - time.monotonic(), 0))
        due = max(due + PACE, time.monotonic() - PACE)
        part = records[at : at + chunk]
        sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
        at = 0 if at + chunk >= len(records) else at + chunk


if __name__ == "__main__":
    feed(sys.argv[1], sys.argv[2], float(sys.argv[3]))
