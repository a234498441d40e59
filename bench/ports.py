"""Which ports of this host are open."""


def is_listening(port):
    """Whether a TCP socket listens on this port, with IPv4 or IPv6."""
    # proc_net_tcp(5): state 0A is listening.
    return any(state == "0A" for bound, state in sockets("tcp") if bound == port)


def is_receiving(port):
    """Whether a UDP socket is bound to this port, with IPv4 or IPv6."""
    return any(bound == port for bound, _ in sockets("udp"))


def sockets(protocol):
    """Local port and state of all sockets."""
    for table in (f"/proc/net/{protocol}", f"/proc/net/{protocol}6"):
        try:
            with open(table, encoding="ascii") as file:
                rows = [line.split() for line in file][1:]
        except OSError:
            continue
        for row in rows:
            yield int(row[1].rpartition(":")[2], 16), row[3]
