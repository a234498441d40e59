"""A minimal HTTP client that can connect from any host."""

import http.client


class Response:
    """A server's response."""

    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.content_type = response.getheader("Content-Type")
        self.body = response.read()

    @property
    def text(self):
        return self.body.decode()


def get(host, port, path, address="127.0.0.1", seconds=10, headers=None, tls=None):
    """Sends a GET request from `host` and returns the response. `tls` is an `ssl.SSLContext` for HTTPS."""
    connection = http.client.HTTPConnection(address, port, timeout=seconds)
    connection.sock = host.connect(address, port, seconds)
    try:
        if tls is not None:
            connection.sock = tls.wrap_socket(connection.sock, server_hostname=address)
        connection.request("GET", path, headers=headers or {})
        return Response(connection.getresponse())
    finally:
        connection.close()
