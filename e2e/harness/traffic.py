"""Traffic that a test sends, and can count."""

import socket
import struct
import threading
import time


class Stream:
    """Numbered datagrams to a port of this or another host, until told to end. Nobody need listen there."""

    def __init__(self, host, address, port, size=200, pause=0.0005):
        self.socket = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # Nobody listens: the answers of the target would be errors here.
        self.target = (address, port)
        self.payload = bytes(max(size - 8, 0))
        self.pause = pause
        self.sent = 0
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.ending.wait(self.pause):
            try:
                self.socket.sendto(struct.pack("!Q", self.sent) + self.payload, self.target)
            except ConnectionRefusedError:
                # The answer to an earlier one; nothing was sent.
                continue
            self.sent += 1

    def end(self):
        """Ends it, and says how many were sent."""
        self.ending.set()
        self.thread.join()
        self.socket.close()
        return self.sent


def burst(host, address, port, count, size=200, first=0, rest=0, pause=0.02):
    """So many numbered datagrams as fast as they go, with a pause after each `rest`, where given."""
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
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
    """The numbers of those datagrams among `packets` that went to `port`, in their order."""
    return [
        struct.unpack_from("!Q", packet.data, headers)[0]
        for packet in packets
        if len(packet.data) >= headers + 8 and struct.unpack_from("!H", packet.data, headers - 6)[0] == port
    ]


def sink(host, address, port=0):
    """A UDP port where datagrams arrive and are not read, so that they cause no errors."""
    receiver = host.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind((address, port))
    return receiver


def stamp_in_the_kernel(host):
    """As long as the socket that is returned lives, the kernel stamps each packet once, for all who capture it;
    otherwise every capture looks at the clock for itself, microseconds apart."""
    receiver = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
    # SO_TIMESTAMPNS of asm-generic/socket.h; Python does not name it.
    receiver.setsockopt(socket.SOL_SOCKET, 35, 1)
    return receiver
