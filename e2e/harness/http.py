"""As much of HTTP as a scrape takes, from any host."""

import http.client


class Answer:
    """What a server said."""

    def __init__(self, response):
        self.status = response.status
        self.kind = response.getheader("Content-Type")
        self.text = response.read().decode()


def get(host, port, path, address="127.0.0.1"):
    """The answer to a GET from `host`."""
    connection = http.client.HTTPConnection(address, port, timeout=10)
    connection.sock = host.connect(address, port)
    try:
        connection.request("GET", path)
        return Answer(connection.getresponse())
    finally:
        connection.close()
