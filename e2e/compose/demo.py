"""compose.yaml as a user starts it."""

from e2e.compose.relay import SERVICES, TIMEOUT
from testkit.outcome import until

# What the collector's tcpdump must print at some time: traffic between the hosts, and DNS queries through the router.
PRINTED = ["Flags [S]", ".8080: UDP", "192.0.2.53.53"]

# Metrics that must not be 0, by service. The traffic is random.
MEASURED = {
    "capture-a": ["packeteur_flow_bytes_total", "packeteur_tcp_rtt_seconds_count", "packet_count"],
    "capture-b": ["packeteur_flow_bytes_total", "packeteur_tcp_rtt_seconds_count", "packet_count"],
    "capture-tzsp": ["tzsp_observed_bytes_total", "packeteur_tzsp_packets_total"],
    "collector": ["packeteur_flow_bytes_total", "tzsp_observed_bytes_total", "tcp_bytes_transferred_total"],
}


def works_unchanged(stack):
    """The collector's tcpdump prints traffic of two hosts and a router, and all services measure it."""
    stack.compose("up", "-d", "--no-build", "host-a", "host-b", "router", *SERVICES)
    for service in SERVICES:
        until(lambda: stack.healthy(service), f"{service} is not healthy", TIMEOUT)

    def not_printed():
        lines = stack.lines("collector")
        return [part for part in PRINTED if not any(part in line for line in lines)]

    until(lambda: not not_printed(), lambda: f"tcpdump does not print {not_printed()}", TIMEOUT)

    def not_measured():
        found = {service: stack.metrics(service) for service in MEASURED}
        return [
            (service, name) for service, names in MEASURED.items() for name in names if not found[service].sum(name)
        ]

    until(lambda: not not_measured(), lambda: f"not measured: {not_measured()}", TIMEOUT)

    def sources():
        metrics = stack.metrics("collector")
        return [
            metrics.sum("packeteur_source_written_packets_total", source=name)
            for name in ("host-a", "host-b", "router")
        ]

    until(lambda: all(sources()), lambda: f"packets of host-a, host-b and router: {sources()}", TIMEOUT)
