"""A host with traffic: it serves TCP and UDP, and sends requests to its peer.

python3 traffic.py PEER
"""

import random
import socket
import sys
import threading
import time

PORT = 8080
MAX_RESPONSE = 200_000


def serve_tcp():
    """Responds to a line with a number with that many bytes."""
    with socket.create_server(("", PORT)) as server:
        while True:
            client, _ = server.accept()
            with client:
                size = int(client.makefile().readline() or 0)
                client.sendall(bytes(min(size, MAX_RESPONSE)))


def serve_udp():
    """Echoes every datagram."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("", PORT))
    while True:
        datagram, peer = server.recvfrom(65536)
        server.sendto(datagram, peer)


def send_requests(peer):
    """Makes one TCP connection, and sends a few datagrams."""
    with socket.create_connection((peer, PORT), timeout=2) as connection:
        connection.sendall(b"%d\n" % random.randint(1, MAX_RESPONSE))
        while connection.recv(65536):
            pass
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(2)
    for _ in range(random.randint(1, 5)):
        client.sendto(bytes(random.randint(1, 1200)), (peer, PORT))
        client.recv(65536)


def main(peer):
    for serve in (serve_tcp, serve_udp):
        threading.Thread(target=serve, daemon=True).start()
    while True:
        try:
            send_requests(peer)
        except OSError as error:
            print(f"{peer}: {error}", file=sys.stderr)
        time.sleep(random.uniform(0.1, 0.5))


if __name__ == "__main__":
    main(sys.argv[1])
