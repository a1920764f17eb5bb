"""PolicyTest documents: expectations, and whether those whom they name are there."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from reconciler.model.origin import Origin
from reconciler.model.policy_test import (
    AddressParty,
    EntityParty,
    Expectation,
    LabelsParty,
    Party,
    PolicyTest,
    WorkloadParty,
    parse_port,
)
from reconciler.source import addresses, metadata
from reconciler.source.cluster import Places
from reconciler.source.metadata import Identity
from reconciler.source.node import Findings, Node, Place
from reconciler.source.phrases import nearest

_SIDES = ("from", "to")
_WAYS = ("workload", "labels", "address", "entity")


def policy_test(document: Node, identity: Identity, findings: Findings) -> tuple[PolicyTest, Places]:
    """The test, and where its expectations name workloads and namespaces (`expectations[0].from`)."""
    spec = document.get("spec")
    assert spec is not None  # its schema requires it
    places: Places = {}
    found = []
    for index, node in enumerate(spec.items("expectations")):
        if (one := _expectation(node, identity, findings)) is not None:
            found.append(one)
        places |= {f"expectations[{index}].{side}": _named_at(node, side) for side in _SIDES}
    reference = f"{identity.namespace}/{identity.name}"
    origin = Origin("", document.place.line, identity.kind, reference, "")
    return PolicyTest(identity.namespace, identity.name, origin, tuple(found)), places


def faults(test: PolicyTest, workloads: Collection[str], namespaces: Collection[str]) -> Iterator[tuple[str, str]]:
    """Place and message for each workload or namespace that is named and not there."""
    for index, one in enumerate(test.expectations):
        for side, party in zip(_SIDES, (one.source, one.destination), strict=True):
            if isinstance(party, WorkloadParty) and party.reference not in workloads:
                message = f'there is no Workload "{party.reference}"; {nearest(party.reference, workloads)}'
                yield f"expectations[{index}].{side}", message
            elif isinstance(party, LabelsParty) and party.namespace not in namespaces:
                message = f'there is no namespace "{party.namespace}"; {nearest(party.namespace, namespaces)}'
                yield f"expectations[{index}].{side}", message


def _named_at(node: Node, side: str) -> Place:
    return node.place_of(side, "workload" if node.get(side, "workload") else "namespace")


def _expectation(node: Node, identity: Identity, findings: Findings) -> Expectation | None:
    """None after a fault."""
    parties = [_party(node.get(side), side, node, identity, findings) for side in _SIDES]
    written: str | None = node.read("port")
    port = parse_port(written) if written else None
    if written and port is None:
        findings.fault(node.place_of("port"), f'port "{written}" is none like 80/tcp, 53/udp, icmp/8 or icmpv6/128')
        return None
    source, destination = parties
    if source is None or destination is None:
        return None
    if not any(isinstance(party, WorkloadParty | LabelsParty | AddressParty) for party in parties):
        findings.fault(node, "policy for workloads is not asked: one of from and to must be a workload")
        return None
    origin = Origin("", node.place.line, identity.kind, f"{identity.namespace}/{identity.name}", "")
    name: str = node.read("name", default="")
    return Expectation(name, source, destination, port, node.read("expect"), origin, node.place.column)


def _party(node: Node | None, side: str, above: Node, identity: Identity, findings: Findings) -> Party | None:
    given = [way for way in _WAYS if node is not None and node.get(way) is not None]
    if node is None or len(given) != 1:
        has = f"has {' and '.join(given)}" if given else "names nobody"
        findings.fault(above.place_of(side), f"{side} {has}: exactly one of {', '.join(_WAYS)} is needed")
        return None
    if node.get("namespace") is not None and given != ["labels"]:
        findings.fault(node.key_place("namespace"), "namespace goes with labels only: a workload is namespace/name")
        return None
    return _READ[given[0]](node, identity, findings)


def _workload(node: Node, identity: Identity, findings: Findings) -> WorkloadParty:
    text: str = node.read("workload")
    return WorkloadParty(text if "/" in text else f"{identity.namespace}/{text}")


def _labels(node: Node, identity: Identity, findings: Findings) -> LabelsParty | None:
    found = {}
    labels = node.get("labels")
    assert labels is not None
    before = len(findings.faults)
    for key, part in labels.members():
        if fault := metadata.key_fault(key) or metadata.value_fault(part.value):
            findings.fault(labels.key_place(key), fault)
        found[key] = part.value
    if len(findings.faults) > before:
        return None
    return LabelsParty(node.read("namespace", default=identity.namespace), tuple(sorted(found.items())))


def _address(node: Node, identity: Identity, findings: Findings) -> AddressParty | None:
    written = node.get("address")
    assert written is not None
    address = addresses.address(written, findings)
    if address is not None and (fault := addresses.multicast_fault(address)):
        findings.fault(written, fault)
        return None
    return None if address is None else AddressParty(address)


def _entity(node: Node, identity: Identity, findings: Findings) -> EntityParty:
    return EntityParty(node.read("entity"))


_READ = {"workload": _workload, "labels": _labels, "address": _address, "entity": _entity}
