"""One file: from bytes to model values, with everything that can be said without looking at another file.

What comes out depends on nothing but the bytes, so it is kept by their hash. Paths and commits come in later (`stamp`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from reconciler.source import (
    cilium_policy,
    cluster,
    documents,
    hosts,
    metadata,
    network_policy,
    own_annotations,
    policy_tests,
    prefilters,
    schema,
    services,
    slices,
    stamp,
    unenforced,
    workloads,
)
from reconciler.source.metadata import Identity
from reconciler.source.node import Finding, Findings, Node, Place
from reconciler.source.stamp import Content


@dataclass(slots=True)
class Document:
    """A document without faults.

    `content`: as it was stamped last, for a path and a commit that mean nothing to the next load; what the bytes alone
    said would be a second copy of all that a snapshot has. `places`: where the fields stand that refer to other
    documents. `unbound`: it depends on the Cluster (see `stamp`).
    """

    identity: Identity
    place: Place
    content: Content
    places: Mapping[str, Place] = field(default_factory=dict)
    unbound: bool = False


@dataclass(frozen=True, slots=True)
class Manifest:
    """A file; `documents` leaves out those that have a fault."""

    documents: tuple[Document, ...] = ()
    faults: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()


_OWN_KINDS: dict[str, Callable[[Node, Identity, Findings], tuple[Any, Mapping[str, Place]]]] = {
    "Cluster": cluster.cluster,
    "Node": hosts.host,
    "Namespace": workloads.namespace,
    "Workload": workloads.workload,
    "Service": services.service,
    "EndpointSlice": slices.endpoint_slice,
    "PolicyTest": policy_tests.policy_test,
    "Prefilter": prefilters.prefilter,
}
_KUBERNETES = "NetworkPolicy"
_CILIUM = ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")


def read(data: bytes, *, is_json: bool = False) -> Manifest:
    """What a file says. Never raises for what is wrong in it: that is in `faults`."""
    try:
        nodes = documents.parse(data, is_json=is_json)
    except documents.ParseError as e:
        return Manifest(faults=(e.finding,))
    findings = Findings()
    found = [document for node in nodes if (document := _document(node, findings)) is not None]
    return Manifest(tuple(found), _once(findings.faults), _once(findings.warnings))


def oversized(size: int) -> Manifest:
    """What a file says that is too big to be read."""
    return Manifest(faults=(documents.too_big(size).finding,))


def check(node: Node) -> Manifest:
    """One document by itself, of which anything may stand that is valid, whether it is enforced or not."""
    findings = Findings()
    if node.read("kind") in schema.LATER_KINDS:
        return Manifest()
    found = _document(node, findings, unenforced.ALL)
    return Manifest((found,) if found else (), _once(findings.faults), _once(findings.warnings))


def _document(node: Node, findings: Findings, accepted: frozenset[str] = frozenset()) -> Document | None:
    """`accepted`: fields of `unenforced` that are no fault."""
    kind = schema.check(node, findings)
    if kind is None:
        return None
    before = len(findings.faults)
    identity = metadata.identity(kind.name, node, findings)
    own_annotations.check(node, kind.name, findings)
    places: Mapping[str, Place] = {}
    content: Content
    if kind.name == _KUBERNETES:
        content = network_policy.rules(node, identity, findings)
    elif kind.name in _CILIUM:
        content = cilium_policy.rules(node, identity, findings, accepted)
    else:
        content, places = _OWN_KINDS[kind.name](node, identity, findings)
    if len(findings.faults) > before:
        return None
    place, shared = _stands(node.place, tuple(places.items()))
    return Document(identity, place, content, shared, stamp.is_unbound(content))


@lru_cache(maxsize=1 << 12)
def _stands(place: Place, places: tuple[tuple[str, Place], ...]) -> tuple[Place, Mapping[str, Place]]:
    """The same objects for all documents that stand, with their fields, at the same lines: most begin at the first."""
    return place, dict(places)


def _once(found: list[Finding]) -> tuple[Finding, ...]:
    """What an alias repeats is said once."""
    return tuple(dict.fromkeys(found))
