"""Policies and identities become the rows of one host: all of them for the first time, and after one rule changed.

Policies select workloads of the whole cluster, a fiftieth of which are on this host; `here`: all select some of these.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from reconciler.compile.cache import CompileCache
from reconciler.compile.host import compile_host
from reconciler.model.cluster import Cluster, Node, Workload
from reconciler.model.facts import Endpoint, Facts
from reconciler.model.identity import FIRST_CLUSTER, Reserved, reserved_labels
from reconciler.model.labels import NAMESPACE_KEY, workload_labels
from reconciler.model.origin import Origin
from reconciler.model.policy import EndpointPeer, PolicyRule, PortMatch, RuleItem
from reconciler.model.selector import Selector, label_is
from reconciler.model.snapshot import Snapshot
from tests.bench.figures import Figure, median

POLICIES = (100, 1_000, 10_000)
IDENTITIES = 10_000  # each has a workload
LOCAL = 200  # of them on the host that is compiled for
ROUNDS = 3
_NODES = ("alpha", "beta")


def measure() -> Iterator[Figure]:
    facts = _facts()
    cases = [(f"policies_{count}", count, IDENTITIES) for count in POLICIES]
    for name, count, among in [*cases, (f"policies_{POLICIES[-1]}_here", POLICIES[-1], LOCAL)]:
        cold, warm = zip(*(_compile(count, among, facts, turn) for turn in range(ROUNDS)), strict=True)
        yield Figure(f"compile.{name}.cold", median(cold), "ms")
        yield Figure(f"compile.{name}.one_changed", median(warm), "ms")


def _compile(count: int, among: int, facts: Facts, turn: int) -> tuple[float, float]:
    """Milliseconds, cold and after one change; policies select the first `among` workloads."""
    rules = tuple(_rule(number, number % among, 80) for number in range(count))
    cache = CompileCache()
    cold = _ms(_snapshot(rules), facts, cache)
    changed = (*rules[:turn], _rule(turn, turn, 8080), *rules[turn + 1 :])
    return cold, _ms(_snapshot(changed), facts, cache)


def _ms(snapshot: Snapshot, facts: Facts, cache: CompileCache) -> float:
    began = time.thread_time()
    desired = compile_host(snapshot, facts, cache, {"from_workload": "1", "to_workload": "1"})
    spent = time.thread_time() - began
    assert len(desired.tables["policy"])
    return spent * 1000


def _origin(kind: str, name: str) -> Origin:
    return Origin(f"{name}.yaml", 1, kind, name, "")


_WORKLOADS = {
    f"default/w{number}": Workload(
        "default",
        f"w{number}",
        _NODES[number >= LOCAL],
        _origin("Workload", f"w{number}"),
        f"/run/netns/w{number}",
        labels={"app": f"a{number}", "tier": f"t{number % 50}"},
    )
    for number in range(IDENTITIES)
}
_SNAPSHOT = Snapshot(
    "",
    Cluster("bench", _origin("Cluster", "bench")),
    {name: Node(name, _origin("Node", name), cidr4=IPv4Network("10.0.0.0/16")) for name in _NODES},
    {},
    _WORKLOADS,
    (),
)


def _snapshot(rules: tuple[PolicyRule, ...]) -> Snapshot:
    return replace(_SNAPSHOT, rules=rules)


def _facts() -> Facts:
    identities = {int(one): reserved_labels(one) for one in Reserved if one}
    endpoints = {}
    for number, (reference, workload) in enumerate(_WORKLOADS.items()):
        identity = FIRST_CLUSTER + number
        identities[identity] = workload_labels("default", workload.labels, {}, "bench")
        address = IPv4Address("10.0.0.0") + number
        mac = f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
        endpoints[reference] = Endpoint(reference, workload.node, identity, f"w{number}", address, None, mac)
    return Facts("alpha", identities, endpoints, frozenset())


def _rule(number: int, selected: int, port: int) -> PolicyRule:
    """Policy `number` selects one workload; a tier of 200 workloads and one workload may reach it."""
    origin = _origin("NetworkPolicy", f"p{number}")
    peers = (_peer("tier", f"t{number % 50}"), _peer("app", f"a{(number + 1) % IDENTITIES}"))
    item = RuleItem("ingress[0]", peers, (PortMatch(6, port, port),), origin)
    subject = _peer("app", f"a{selected}").selector
    return PolicyRule("NetworkPolicy", "default", f"p{number}", subject, origin, ingress=(item,), isolates_ingress=True)


def _peer(key: str, value: str) -> EndpointPeer:
    return EndpointPeer(Selector((label_is("k8s", NAMESPACE_KEY, "default"), label_is("any", key, value))))
