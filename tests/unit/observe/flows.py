"""Records as the datapath writes them, and names for the numbers in them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

import numpy as np

from reconciler.model.labels import LabelSet, parse_label
from reconciler.model.origin import Origin
from reconciler.observe.events import shipped_layout
from reconciler.observe.flow_text import RuleReference

WEB, STRANGER = ip_address("10.44.0.3"), ip_address("10.44.0.9")
NOON_NS = 1_800_000_000_345_000_000


def record(**fields: int | bytes) -> bytes:
    """One event: TCP from STRANGER to WEB's port 80, dropped by default deny, unless `fields` say otherwise."""
    row = np.zeros(1, shipped_layout())
    values: dict[str, int | bytes] = {
        "time_ns": 1,
        "type": 1,
        "reason": 1,
        "side": 2,
        "family": 4,
        "protocol": 6,
        "tcp_flags": 2,
        "source_port": 40000,
        "destination_port": 80,
        "source_identity": 1234,
        "destination_identity": 5678,
        "cookie": 77,
        "generation": 3,
        "ifindex": 9,
        "length": 74,
        "source": STRANGER.packed,
        "destination": WEB.packed,
        **fields,
    }
    for name, value in values.items():
        if isinstance(value, bytes):
            row[name][0][: len(value)] = np.frombuffer(value, np.uint8)
        else:
            row[name] = _swapped(value) if name.endswith("_port") else value
    return row.tobytes()


def _swapped(port: int) -> int:
    return int(np.array(port, ">u2").view(np.uint16)[()])


@dataclass(frozen=True)
class Rule:
    reference: str
    field: str
    origin: Origin


@dataclass(frozen=True)
class Names:
    """A small cluster."""

    workloads: Mapping[IPv4Address | IPv6Address, str] = field(
        default_factory=lambda: {WEB: "default/web", STRANGER: "default/stranger"}
    )
    rules: Mapping[int, Rule] = field(
        default_factory=lambda: {
            77: Rule(
                "NetworkPolicy/default/web",
                "ingress",
                Origin("policies/web.yaml", 8, "NetworkPolicy", "default/web", "1a2b3c4d" * 5),
            ),
            78: Rule(
                "NetworkPolicy/default/web",
                "ingress[0]",
                Origin("policies/web.yaml", 12, "NetworkPolicy", "default/web", "1a2b3c4d" * 5),
            ),
        }
    )

    def labels(self, identity: int) -> LabelSet | None:
        known = {1234: "k8s:app=stranger", 5678: "k8s:app=web", 9: "reserved:world-ipv4"}
        return frozenset({parse_label(known[identity])}) if identity in known else None

    def workload(self, address: IPv4Address | IPv6Address) -> str:
        return self.workloads.get(address, "")

    def rule(self, cookie: int) -> RuleReference | None:
        return self.rules.get(cookie)
