"""What a PolicyTest expects of policy: who may open which flow to whom. And who can be asked about at all."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from reconciler.model.origin import Origin
from reconciler.model.policy import PROTOCOLS

VERDICTS = ("allowed", "denied", "redirected")
ENTITIES = ("host", "remote-node", "world", "world-ipv4", "world-ipv6")
_PROTOCOL_NAMES = {name.lower(): number for name, number in PROTOCOLS.items()}
_ICMP = (PROTOCOLS["ICMP"], PROTOCOLS["ICMPV6"])
_LAST_PORT, _LAST_ICMP_TYPE = 65535, 255


@dataclass(frozen=True, slots=True)
class WorkloadParty:
    """`reference` is `namespace/name`, or a name alone where it is unique."""

    reference: str

    def __str__(self) -> str:
        return self.reference


@dataclass(frozen=True, slots=True)
class LabelsParty:
    """Every workload with these labels, in a namespace or ('') in any; if there is none, one as if it were there."""

    namespace: str
    labels: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        named = (("namespace", self.namespace),) if self.namespace else ()
        return ",".join(f"{key}={value}" for key, value in (*self.labels, *named)) or "any workload"


@dataclass(frozen=True, slots=True)
class AddressParty:
    """Whoever has the address: a workload, a node, or somebody outside the cluster."""

    address: IPv4Address | IPv6Address

    def __str__(self) -> str:
        return str(self.address)


@dataclass(frozen=True, slots=True)
class EntityParty:
    """`name` is one of `ENTITIES`. `world` is an address that no rule names, of either family."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class IdentityParty:
    """Whoever has the numeric identity; what numbers mean, only a host knows."""

    number: int

    def __str__(self) -> str:
        return f"identity {self.number}"


Party = WorkloadParty | LabelsParty | AddressParty | EntityParty | IdentityParty


@dataclass(frozen=True, slots=True)
class DestinationPort:
    """For ICMP `number` is the type."""

    protocol: int
    number: int

    def __str__(self) -> str:
        name = next((name for name, number in _PROTOCOL_NAMES.items() if number == self.protocol), str(self.protocol))
        return f"{name}/{self.number}" if self.protocol in _ICMP else f"{self.number}/{name}"


def parse_port(text: str) -> DestinationPort | None:
    """`80/tcp`, `53/udp`, `icmp/8`, `icmpv6/128`, in either order; None if it is none of these."""
    first, _, second = text.lower().partition("/")
    name, number = (first, second) if first in _PROTOCOL_NAMES else (second, first)
    if name not in _PROTOCOL_NAMES or not (number.isascii() and number.isdecimal()) or len(number) > len("65535"):
        return None
    port = DestinationPort(_PROTOCOL_NAMES[name], int(number))
    lowest, highest = (0, _LAST_ICMP_TYPE) if port.protocol in _ICMP else (1, _LAST_PORT)
    return port if lowest <= port.number <= highest else None


@dataclass(frozen=True, slots=True)
class Expectation:
    """`expect` is one of `VERDICTS`, and holds for every flow that it stands for. Without a port: for every port.

    `origin.line` and `column` are where it stands.
    """

    name: str
    source: Party
    destination: Party
    port: DestinationPort | None
    expect: str
    origin: Origin
    column: int

    def __str__(self) -> str:
        if self.name:
            return f'"{self.name}"'
        return f"{self.source} to {self.destination} on {self.port or 'any port'}"


@dataclass(frozen=True, slots=True)
class PolicyTest:
    namespace: str
    name: str
    origin: Origin
    expectations: tuple[Expectation, ...]

    @property
    def reference(self) -> str:
        return f"{self.namespace}/{self.name}"
