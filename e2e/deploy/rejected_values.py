"""Values of the Helm chart that must be rejected, and a part of the message."""

PUBLIC_KEY = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="

REJECTED = {
    "no collector": ({"collector": {"enabled": False}}, "there is no collector to send to"),
    "nothing at all": ({"mode": "none", "collector": {"enabled": False}}, "there is nothing to install"),
    "an unused endpoint": ({"mode": "observe", "relayEndpoint": "tcp://c:1"}, "only captures send packets"),
    "a setting with a value of its own": (
        {"settings": {"FILTER": "tcp"}},
        "settings.FILTER: set the value `filter` instead",
    ),
    "an output setting with a value of its own": (
        {"collector": {"settings": {"OUTPUT": "/x"}}},
        "collector.settings.OUTPUT: set the value `collector.output` instead",
    ),
    "captures without the collector's key": ({"keys": {"secret": "key"}}, "keys: set both secret and collectorKey"),
    "a collector that admits nobody": (
        {"collector": {"keys": {"secret": "key"}}},
        "collector.keys: set both secret and authorizedKeys",
    ),
    "captures with keys and a collector without": (
        {"keys": {"secret": "key", "collectorKey": PUBLIC_KEY}},
        "keys and collector.keys: set both or neither",
    ),
    "a collector with keys and captures without": (
        {"collector": {"keys": {"secret": "key", "authorizedKeys": f"{PUBLIC_KEY} *"}}},
        "keys and collector.keys: set both or neither",
    ),
    "keys of an exporter": (
        {"mode": "observe", "keys": {"secret": "key", "collectorKey": PUBLIC_KEY}},
        "only captures send packets",
    ),
    "keys of a collector that is not installed": (
        {
            "mode": "observe",
            "collector": {"enabled": False, "keys": {"secret": "key", "authorizedKeys": f"{PUBLIC_KEY} *"}},
        },
        "collector.enabled is false",
    ),
    "a key as a setting": (
        {"settings": {"KEY_FILE": "/key"}},
        "settings.KEY_FILE: set the value `keys.secret` instead",
    ),
    "a collector's key that is none": ({"keys": {"secret": "key", "collectorKey": "secret"}}, "collectorKey"),
    "no devices": ({"devices": []}, "devices is empty"),
    "the same port twice": ({"collector": {"ports": {"metrics": 7386}}}, "relay and metrics are both 7386"),
    "the same port of a node twice": (
        {"metricsPort": 9108, "collector": {"hostNetwork": True}},
        "with collector.hostNetwork both are the node's",
    ),
    "a network policy with the host network": (
        {"collector": {"hostNetwork": True}, "networkPolicy": {"enabled": True}},
        "networkPolicy.enabled has no effect",
    ),
    "a service monitor without a collector": (
        {"mode": "observe", "collector": {"enabled": False}, "serviceMonitor": {"enabled": True}},
        "serviceMonitor.enabled is about the collector",
    ),
    "a pod monitor without captures": (
        {"mode": "none", "podMonitor": {"enabled": True}},
        "podMonitor.enabled is about the nodes",
    ),
    "an unknown mode": ({"mode": "sniff"}, "mode"),
    "an unknown value": ({"device": "eth0"}, "device"),
    "an invalid port": ({"metricsPort": 70000}, "metricsPort"),
    "an endpoint without a port": ({"relayEndpoint": "tcp://collector"}, "relayEndpoint"),
    "devices as one string": ({"devices": ["eth0,eth1"]}, "devices"),
    "an unknown observer": ({"observe": "packets"}, "observe"),
    "a number as a setting": ({"settings": {"SNAPLEN": 256}}, "SNAPLEN"),
    "an invalid size": ({"collector": {"output": {"volume": {"size": "lots"}}}}, "size"),
    "a reader without a command": ({"collector": {"output": {"reader": {"command": []}}}}, "command"),
    "addresses without a prefix length": ({"networkPolicy": {"relayFrom": ["192.0.2.1"]}}, "relayFrom"),
}
