"""Workloads of other hosts: judged alike whether their manifests or their hosts tell of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from reconciler.compile.cache import CompileCache
from reconciler.compile.host import Desired, compile_host
from reconciler.engine.rows import Columns
from reconciler.model.cluster import NamedPort, Workload
from reconciler.model.facts import REMOTE_ROW, Facts, RemoteEndpoints
from reconciler.model.identity import Reserved
from reconciler.model.policy import PolicyRule, PortMatch

from .lookup import identity_of, policy_rows
from .worlds import (
    HERE,
    NODES,
    PROGRAMS,
    TCP,
    THERE,
    app,
    cidr,
    compiled,
    facts_of,
    item,
    origin,
    peers,
    rule,
    snapshot_of,
    workload,
)

HTTP, HTTP_ELSEWHERE = NamedPort("http", 80, TCP), NamedPort("http", 8080, TCP)
WORKLOADS = [
    workload("web", {"app": "web"}, ports=[HTTP]),
    workload("client", {"app": "client"}),
    *(
        workload(f"web-{number}", {"app": "web"}, THERE, [HTTP_ELSEWHERE] if number % 2 else [HTTP])
        for number in range(4)
    ),
    *(workload(f"client-{number}", {"app": "client"}, THERE) for number in range(3)),
]
NAMED = (PortMatch(TCP, name="http"),)
RULES = {
    "labels": [rule(app("web"), (item("ingress[0]", peers(app("client"))),))],
    "an ipBlock": [
        rule(
            app("web"),
            (item("ingress[0]", (cidr("10.44.2.8/31", workloads=True), cidr("fd44:2::9/128", workloads=True))),),
        )
    ],
    "a hole": [rule(app("web"), (item("ingress[0]", (cidr("10.44.2.0/24", "10.44.2.9/32", workloads=True),)),))],
    "named ports": [rule(app("client"), egress=(item("egress[0]", peers(app("web")), NAMED),))],
    "both": [
        rule(app("client"), egress=(item("egress[0]", (cidr("10.44.2.4/30", workloads=True),), NAMED),)),
        rule(app("web"), (item("ingress[0]", None, NAMED),), name="other"),
    ],
}


def announced(facts: Facts) -> Facts:
    """The same, but that the other host tells of its workloads."""
    theirs = [one for one in facts.endpoints.values() if one.node != HERE]
    ports: list[frozenset[NamedPort]] = [frozenset()]
    rows = []
    for place, one in enumerate(theirs):
        own = frozenset(_manifest(one.reference).ports)
        if own not in ports:
            ports.append(own)
        for address in (one.address4, one.address6):
            assert address is not None
            value = int(address) | (0xFFFF << 32 if address.version == 4 else 0)
            rows.append((value >> 64, value & (1 << 64) - 1, one.identity, place, ports.index(own)))
    remote = RemoteEndpoints(
        np.array(rows, REMOTE_ROW),
        [one.reference for one in theirs],
        [one.node for one in theirs],
        [origin("Workload", one.reference.partition("/")[2]) for one in theirs],
        ports,
    )
    return replace(facts, endpoints={k: one for k, one in facts.endpoints.items() if one.node == HERE}, remote=remote)


def _manifest(reference: str) -> Workload:
    return next(one for one in WORKLOADS if one.reference == reference)


def compiled_of(facts: Facts, rules: list[PolicyRule]) -> Desired:
    return compile_host(snapshot_of(WORKLOADS, rules), facts, CompileCache(), PROGRAMS)


def ipcache_rows(desired: Desired) -> dict[bytes, tuple[bytes, str]]:
    rows = desired.tables["ipcache"]
    assert isinstance(rows, Columns)
    pairs = zip(rows.keys, rows.values, strict=True)
    return {key.tobytes(): (value.tobytes(), str(rows.origin(place))) for place, (key, value) in enumerate(pairs)}


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_rows_are_the_same_whoever_tells_of_a_workload(rules: list[PolicyRule]) -> None:
    told = compiled(WORKLOADS, rules)
    heard = compiled_of(announced(facts_of(WORKLOADS)), rules)
    assert ipcache_rows(heard) == ipcache_rows(told)
    assert heard.identities == told.identities
    one, other = policy_rows(told), policy_rows(heard)
    assert dict(zip(map(bytes, one.keys), map(bytes, one.values), strict=True)) == dict(
        zip(map(bytes, other.keys), map(bytes, other.values), strict=True)
    )


def test_who_announces_an_address_of_a_node_or_of_a_workload_here_does_not_get_it() -> None:
    facts = announced(facts_of(WORKLOADS))
    here = facts.endpoints["default/web"]
    assert here.address4 is not None
    node = NODES[THERE].address4
    assert node is not None
    rows = facts.remote.rows.copy()
    rows["low"][:2] = [int(here.address4) | 0xFFFF << 32, int(node) | 0xFFFF << 32]
    rows["high"][:2] = 0
    desired = compiled_of(replace(facts, remote=replace(facts.remote, rows=rows)), [])
    assert identity_of(desired, here.address4) == here.identity
    assert identity_of(desired, node) == Reserved.REMOTE_NODE
