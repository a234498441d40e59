"""compose.yaml as people start it."""

from e2e.compose.relay import SERVICES
from testkit.outcome import until

LONG = 60

# What the collector's tcpdump is to print, some time: the hosts talk, and the router's hosts ask for names.
PRINTED = ["Flags [S]", ".8080: UDP", "192.0.2.53.53"]

# What is to be measured, by service. Traffic is random: that it is there is what is asked.
MEASURED = {
    "capture-a": ["packeteur_flow_bytes_total", "packeteur_tcp_rtt_seconds_count", "packet_count"],
    "capture-b": ["packeteur_flow_bytes_total", "packeteur_tcp_rtt_seconds_count", "packet_count"],
    "capture-tzsp": ["tzsp_observed_bytes_total", "packeteur_tzsp_packets_total"],
    "collector": ["packeteur_flow_bytes_total", "tzsp_observed_bytes_total", "tcp_bytes_transferred_total"],
}


def shows_it_all(stack):
    """Traffic of two hosts and of a router is printed by the collector's tcpdump, and measured by all."""
    stack.compose("up", "-d", "--no-build", "host-a", "host-b", "router", *SERVICES)
    for service in SERVICES:
        until(lambda: stack.healthy(service), f"{service} is not healthy", LONG)

    def not_printed():
        lines = stack.lines("collector")
        return [part for part in PRINTED if not any(part in line for line in lines)]

    until(lambda: not not_printed(), lambda: f"tcpdump does not print {not_printed()}", LONG)

    def not_measured():
        found = {service: stack.metrics(service) for service in MEASURED}
        return [
            (service, name) for service, names in MEASURED.items() for name in names if not found[service].sum(name)
        ]

    until(lambda: not not_measured(), lambda: f"not measured: {not_measured()}", LONG)

    def sources():
        metrics = stack.metrics("collector")
        return [
            metrics.sum("packeteur_source_written_packets_total", source=name)
            for name in ("host-a", "host-b", "router")
        ]

    until(lambda: all(sources()), lambda: f"packets of host-a, host-b and router: {sources()}", LONG)
