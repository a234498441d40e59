"""A minimal HTTP client that can connect from any host."""

import http.client


class Response:
    """A server's response."""

    def __init__(self, response):
        self.status = response.status
        self.content_type = response.getheader("Content-Type")
        self.body = response.read()

    @property
    def text(self):
        return self.body.decode()


def get(host, port, path, address="127.0.0.1", seconds=10):
    """Sends a GET request from `host` and returns the response."""
    connection = http.client.HTTPConnection(address, port, timeout=seconds)
    connection.sock = host.connect(address, port, seconds)
    try:
        connection.request("GET", path)
        return Response(connection.getresponse())
    finally:
        connection.close()
