"""Policies and identities become the rows of one host: all of them for the first time, and after one rule changed.

Policies select workloads of the whole cluster, 200 of which are on this host; `here`: all select some of these. As with
every commit, all origins are new when one rule changed. Garbage of the commit before is collected first, as daemons do.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple

from reconciler.compile.cache import CompileCache
from reconciler.compile.host import compile_host
from reconciler.daemon.memory import settle_memory
from reconciler.model.cluster import Cluster, Node, Workload
from reconciler.model.facts import Endpoint, Facts
from reconciler.model.identity import FIRST_CLUSTER, Reserved, reserved_labels
from reconciler.model.labels import NAMESPACE_KEY, workload_labels
from reconciler.model.origin import Origin
from reconciler.model.policy import EndpointPeer, PolicyRule, PortMatch, RuleItem
from reconciler.model.selector import Selector, label_is
from reconciler.model.snapshot import Snapshot
from reconciler.source import stamp
from tests.bench.figures import Figure, median

POLICIES = (100, 1_000, 10_000)
IDENTITIES = (1_000, 10_000)  # each has a workload
LOCAL = 200  # of them on the host that is compiled for
ROUNDS = 3
TRIE_NODE = 40  # bytes of a row, as the kernel counts them: see lookup.*.kilobytes
_NODES = ("alpha", "beta")

Workloads = Mapping[str, Workload]


class Compiled(NamedTuple):
    """Milliseconds, and what the policy of a subject takes: rows, and bytes as rows of the kernel."""

    cold: float
    one_changed: float
    rows: float
    bytes: float


def measure() -> Iterator[Figure]:
    for identities in IDENTITIES:
        workloads = _workloads(identities)
        facts = _facts(workloads)
        cases = [(f"policies_{count}", count, identities) for count in POLICIES]
        for name, count, among in [*cases, (f"policies_{POLICIES[-1]}_here", POLICIES[-1], LOCAL)]:
            found = [_compile(workloads, facts, count, among, turn) for turn in range(ROUNDS)]
            prefix = f"compile.identities_{identities}.{name}"
            yield Figure(f"{prefix}.cold", median(one.cold for one in found), "ms")
            yield Figure(f"{prefix}.one_changed", median(one.one_changed for one in found), "ms")
            yield Figure(f"{prefix}.rows_per_subject", found[0].rows, "rows")
            yield Figure(f"{prefix}.bytes_per_subject", found[0].bytes, "bytes")


def _compile(workloads: Workloads, facts: Facts, count: int, among: int, turn: int) -> Compiled:
    """Policies select the first `among` workloads."""
    rules = tuple(_rule(number, number % among, 80) for number in range(count))
    cache = CompileCache()
    cold, rows = _ms(_commit(workloads, rules, "a"), facts, cache)
    changed = (*rules[:turn], _rule(turn, turn, 8080), *rules[turn + 1 :])
    one_changed, _ = _ms(_commit(workloads, changed, "b"), facts, cache)
    return Compiled(cold, one_changed, rows / LOCAL, rows / LOCAL * TRIE_NODE)


def _ms(snapshot: Snapshot, facts: Facts, cache: CompileCache) -> tuple[float, int]:
    """And how many rows of policy there are."""
    settle_memory()
    began = time.thread_time()
    desired = compile_host(snapshot, facts, cache, {"from_workload": "1", "to_workload": "1"})
    spent = time.thread_time() - began
    return spent * 1000, len(desired.tables["policy"])


def _origin(kind: str, name: str) -> Origin:
    return Origin(f"{name}.yaml", 1, kind, name, "")


_CLUSTER = Cluster("bench", _origin("Cluster", "bench"))
_HOSTS = {name: Node(name, _origin("Node", name), cidr4=IPv4Network("10.0.0.0/16")) for name in _NODES}


def _workloads(count: int) -> Workloads:
    return {
        f"default/w{number}": Workload(
            "default",
            f"w{number}",
            _NODES[number >= LOCAL],
            _origin("Workload", f"w{number}"),
            f"/run/netns/w{number}",
            labels={"app": f"a{number}", "tier": f"t{number % 50}"},
        )
        for number in range(count)
    }


def _commit(workloads: Workloads, rules: tuple[PolicyRule, ...], commit: str) -> Snapshot:
    return Snapshot(
        commit,
        stamp.own(_CLUSTER, "cluster.yaml", commit),
        {name: stamp.own(host, "nodes.yaml", commit) for name, host in _HOSTS.items()},
        {},
        {name: stamp.own(one, "workloads.yaml", commit) for name, one in workloads.items()},
        tuple(stamp.policy(rule, "policies.yaml", commit) for rule in rules),
    )


def _facts(workloads: Workloads) -> Facts:
    identities = {int(one): reserved_labels(one) for one in Reserved if one}
    endpoints = {}
    for number, (reference, workload) in enumerate(workloads.items()):
        identity = FIRST_CLUSTER + number
        identities[identity] = workload_labels("default", workload.labels, {}, "bench")
        address = IPv4Address("10.0.0.0") + number
        mac = f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
        endpoints[reference] = Endpoint(reference, workload.node, identity, f"w{number}", address, None, mac)
    return Facts("alpha", identities, endpoints, frozenset())


def _rule(number: int, selected: int, port: int) -> PolicyRule:
    """Policy `number` selects one workload; a tier of 200 workloads and one workload may reach it."""
    origin = _origin("NetworkPolicy", f"p{number}")
    peers = (_peer("tier", f"t{number % 50}"), _peer("app", f"a{(number + 1) % IDENTITIES[0]}"))
    item = RuleItem("ingress[0]", peers, (PortMatch(6, port, port),), origin)
    subject = _peer("app", f"a{selected}").selector
    return PolicyRule("NetworkPolicy", "default", f"p{number}", subject, origin, ingress=(item,), isolates_ingress=True)


def _peer(key: str, value: str) -> EndpointPeer:
    return EndpointPeer(Selector((label_is("k8s", NAMESPACE_KEY, "default"), label_is("any", key, value))))
