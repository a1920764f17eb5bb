"""The Cluster document: settings of the cluster and probes."""

from __future__ import annotations

from reconciler.model.cluster import (
    AllowLocalhost,
    Cluster,
    Conntrack,
    Enforcement,
    Health,
    Network,
    NetworkMode,
    Probe,
    Timeouts,
    XdpMode,
)
from reconciler.model.labels import IdentityLabels
from reconciler.model.origin import Origin
from reconciler.model.outside import Masquerade
from reconciler.source import addresses, balancing, service_ports, stores
from reconciler.source.metadata import Identity
from reconciler.source.node import Findings, Node, Place

Places = dict[str, Place]

_TIMEOUTS = {
    "tcpEstablished": "tcp_established_s",
    "tcpOpening": "tcp_opening_s",
    "tcpClosing": "tcp_closing_s",
    "udp": "udp_s",
    "icmp": "icmp_s",
    "other": "other_s",
}


def cluster(document: Node, identity: Identity, findings: Findings) -> tuple[Cluster, Places]:
    """The settings, and where the workloads stand that probes name (`probes[0].from`, `probes[0].to`)."""
    base = Cluster(identity.name, Origin("", document.place.line, identity.kind, identity.name, ""))
    spec = document.get("spec") or document
    places: Places = {}
    network = _network(spec)
    found = Cluster(
        name=base.name,
        origin=base.origin,
        id=int(spec.read("id", default=base.id)),
        store=stores.choice(spec, findings),
        clusters=stores.clusters(spec, base.name, findings),
        identity_labels=IdentityLabels(
            *(tuple(node.value for node in spec.items("identityLabels", which)) for which in ("include", "exclude"))
        ),
        pools=stores.pools(spec, findings),
        enforcement=Enforcement(spec.read("policy", "enforcement", default=base.enforcement.value)),
        allow_localhost=AllowLocalhost(spec.read("policy", "allowLocalhost", default=base.allow_localhost.value)),
        ipblock_matches_workloads=spec.read(
            "policy", "ipBlockMatchesWorkloads", default=base.ipblock_matches_workloads
        ),
        mtu_bytes=int(spec.read("mtu", default=base.mtu_bytes)),
        network=network,
        services=balancing.services(spec, network, findings),
        xdp=XdpMode(spec.read("xdp", "mode", default=False) or base.xdp.value),  # an unquoted `off` is read as false
        conntrack=_conntrack(spec),
        masquerade=_masquerade(spec, findings),
        probes=_probes(spec, identity, places, findings),
        health=_health(spec),
        waves=tuple(node.value for node in spec.items("rollout", "waves")) or base.waves,
    )
    service_ports.check(spec, found, findings)
    return found, places


def _network(spec: Node) -> Network:
    base = Network()
    return Network(
        mode=NetworkMode(spec.read("network", "mode", default=base.mode.value)),
        direct_routes=spec.read("network", "directRoutes", default=base.direct_routes),
        underlay={"auto": 0, "ipv4": 4, "ipv6": 6}[spec.read("network", "underlay", default="auto")],
        port=int(spec.read("network", "port", default=base.port)),
    )


def _health(spec: Node) -> Health:
    base = Health()
    return Health(
        interval_s=float(spec.read("health", "interval", default=base.interval_s)),
        failures=int(spec.read("health", "failures", default=base.failures)),
    )


def _conntrack(spec: Node) -> Conntrack:
    base = Conntrack()
    given = {_TIMEOUTS[key]: int(node.value) for key, node in spec.members("conntrack", "timeouts")}
    return Conntrack(int(spec.read("conntrack", "maxEntries", default=base.max_entries)), Timeouts(**given))


def _masquerade(spec: Node, findings: Findings) -> Masquerade:
    base = Masquerade()
    given = spec.get("masquerade")
    if given is None:
        return base
    exclude = (addresses.network(node, findings) for node in given.items("exclude"))
    first, last = base.first_port, base.last_port
    if (ports := given.get("ports")) is not None:
        first, last = _port_range(ports, findings) or (first, last)
    return Masquerade(
        enabled=given.read("enabled", default=base.enabled),
        exclude=tuple(one for one in exclude if one is not None),
        first_port=first,
        last_port=last,
    )


def _port_range(node: Node, findings: Findings) -> tuple[int, int] | None:
    first, dash, last = str(node.value).partition("-")
    if not (dash and first.isascii() and first.isdecimal() and last.isascii() and last.isdecimal()):
        findings.fault(node, f'ports "{node.value}" must be two ports with a dash, as 49152-65535')
    elif not 1024 <= int(first) <= int(last) <= 65535:
        findings.fault(node, f"ports {node.value} must lie between 1024 and 65535, the lower one first")
    else:
        return int(first), int(last)
    return None


def _probes(spec: Node, identity: Identity, places: Places, findings: Findings) -> tuple[Probe, ...]:
    found: dict[str, Probe] = {}
    for index, node in enumerate(spec.items("probes")):
        name: str = node.read("name")
        if name in found:
            findings.fault(node.place_of("name"), f'two probes are called "{name}"')
        _check_reference(node, "from", findings, addressable=False)
        _check_reference(node, "to", findings, addressable=True)
        places[f"probes[{index}].from"] = node.place_of("from")
        places[f"probes[{index}].to"] = node.place_of("to")
        found[name] = Probe(
            name=name,
            source=node.read("from"),
            host=node.read("to"),
            port=int(node.read("port")),
            expect_open=node.read("expect", default="open") == "open",
            timeout_s=float(node.read("timeout", default=1)),
            origin=Origin("", node.place.line, identity.kind, identity.name, ""),
        )
    return tuple(found.values())


def _check_reference(node: Node, field: str, findings: Findings, *, addressable: bool) -> None:
    text: str = node.read(field)
    if addressable and addresses.address_like(text):
        return
    namespace, slash, name = text.partition("/")
    if not (slash and namespace and name) or "/" in name:
        form = "an address or namespace/name of a Workload" if addressable else "namespace/name of a Workload"
        findings.fault(node.place_of(field), f'{field} "{text}" must be {form}')
