"""Encodes batches, valid or not, according to the table in crates/batch/src/layout.rs, without using its code."""

import struct
import time

HEADER = struct.Struct("<4sBBHIIIIIIQQQQQQQQQ")


def fields(source, device):
    """The two fields that every batch has."""
    return b"".join(
        struct.pack("<HH", kind, len(text)) + text for kind, text in ((1, source.encode()), (2, device.encode()))
    )


def records(packets):
    """The packet records of a batch."""
    return b"".join(
        struct.pack("<IIII", *divmod(p.time, 1_000_000_000), len(p.data), p.original) + p.data for p in packets
    )


def encode(packets=(), source="raw", device="none", **changes):
    """A valid batch, except for `changes`: header fields by name, or the whole `fields` or `payload`."""
    payload = changes.pop("payload", records(packets))
    names = changes.pop("fields", fields(source, device))
    latest = max((p.time for p in packets), default=0)
    header = {
        "magic": b"PKTR",
        "version": 1,
        "compression": 0,
        "flags": 0,
        "header_length": HEADER.size + len(names),
        "link_type": 1,
        "snaplen": 262144,
        "packet_count": len(packets),
        "payload_length": len(payload),
        "zero": 0,
        "epoch": 1_700_000_000_000_000_000,
        "sequence": 0,
        "sent_before": 0,
        "sent_at": time.time_ns(),
        "watermark": latest,
        "captured": changes.get("sent_before", 0) + len(packets),
        "dropped_kernel": 0,
        "dropped_interface": 0,
        "dropped_relay": 0,
    }
    unknown = set(changes) - set(header)
    if unknown:
        raise ValueError(f"unknown header fields: {unknown}")
    header.update(changes)
    return HEADER.pack(*header.values()) + names + payload
