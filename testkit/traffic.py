"""UDP traffic that a test sends and can count."""

import socket
import struct
import threading
import time


class Stream:
    """Sends numbered datagrams to a port until stopped. The port need not be open."""

    def __init__(self, host, address, port, size=200, pause=0.0005):
        self.socket = host.open_socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.target = (address, port)
        self.payload = bytes(max(size - 8, 0))
        self.pause = pause
        self.sent = 0
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.stopping.wait(self.pause):
            try:
                self.socket.sendto(struct.pack("!Q", self.sent) + self.payload, self.target)
            except ConnectionRefusedError:
                # The port is closed, according to the reply to an earlier datagram. Nothing was sent.
                continue
            self.sent += 1

    def stop(self):
        """Stops, and returns how many were sent."""
        self.stopping.set()
        self.thread.join()
        self.socket.close()
        return self.sent


def burst(host, address, port, count, size=200, first=0, rest=0, pause=0.02):
    """Sends numbered datagrams as fast as possible, with a pause after every `rest` of them if given."""
    with host.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        payload = bytes(max(size - 8, 0))
        for number in range(first, first + count):
            while True:
                try:
                    sender.sendto(struct.pack("!Q", number) + payload, (address, port))
                    break
                except ConnectionRefusedError:
                    continue
            if rest and (number - first) % rest == rest - 1:
                time.sleep(pause)


def numbers(packets, port, headers=14 + 20 + 8):
    """The numbers of the datagrams among `packets` that were sent to `port`, in order."""
    return [
        struct.unpack_from("!Q", packet.data, headers)[0]
        for packet in packets
        if len(packet.data) >= headers + 8 and struct.unpack_from("!H", packet.data, headers - 6)[0] == port
    ]


def sink(host, address, port=0):
    """Opens a UDP port and never reads from it: datagrams to it cause no errors."""
    receiver = host.open_socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind((address, port))
    return receiver


def share_timestamps(host):
    """While the returned socket is open, the kernel timestamps each packet once. Otherwise each capture socket takes a
    timestamp of its own, some microseconds apart."""
    receiver = host.open_socket(socket.AF_INET, socket.SOCK_DGRAM)
    # SO_TIMESTAMPNS of asm-generic/socket.h, which Python does not define.
    receiver.setsockopt(socket.SOL_SOCKET, 35, 1)
    return receiver
