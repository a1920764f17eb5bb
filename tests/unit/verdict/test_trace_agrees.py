"""Traces against rows and against a naive reading of the rules, on random clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.compile.cache import CompileCache
from reconciler.compile.host import compile_judging
from reconciler.model.cluster import AllowLocalhost, Enforcement, Workload
from reconciler.model.facts import Facts
from reconciler.model.policy import L7Rules, PolicyRule, RuleItem
from reconciler.model.policy_test import AddressParty, DestinationPort, EntityParty, WorkloadParty
from reconciler.model.policy_test import Party as Asked
from reconciler.verdict.by_rows import sides
from reconciler.verdict.case import Question
from reconciler.verdict.commit_world import cluster_world
from reconciler.verdict.parties import Known
from reconciler.verdict.rows import Ipcache, PolicyRows
from reconciler.verdict.trace import trace
from tests.unit.compile.oracle import allowed
from tests.unit.compile.test_policy_meaning import OUTSIDE, PORTS, PROTOCOLS, clusters, parties, rules
from tests.unit.compile.worlds import HERE, TCP, UDP, facts_of, snapshot_of

from .consistency import contradictions

ICMP, ICMPV6 = 1, 58
L7 = L7Rules("http", "[]")


@st.composite
def richer_rules(draw: st.DrawFn) -> PolicyRule:
    """With audit mode, and rules that leave the last word to a proxy."""
    rule = draw(rules())

    def enriched(items: tuple[RuleItem, ...]) -> tuple[RuleItem, ...]:
        return tuple(item if item.deny or draw(st.integers(0, 3)) else replace(item, l7=L7) for item in items)

    audit = draw(st.integers(0, 3)) == 0
    return replace(rule, ingress=enriched(rule.ingress), egress=enriched(rule.egress), audit=audit)


def everybody(workloads: Sequence[Workload]) -> list[Asked]:
    outside = [AddressParty(IPv6Address(text) if ":" in text else IPv4Address(text)) for text in OUTSIDE]
    return [*(WorkloadParty(one.reference) for one in workloads), *outside, EntityParty("host"), EntityParty("world")]


@settings(max_examples=150, deadline=None)
@given(
    clusters(),
    st.lists(richer_rules(), max_size=4),
    st.sampled_from(Enforcement),
    st.sampled_from(AllowLocalhost),
    st.data(),
)
def test_reasons_and_rows_agree(
    workloads: list[Workload],
    policy: list[PolicyRule],
    enforcement: Enforcement,
    allow_localhost: AllowLocalhost,
    data: st.DataObject,
) -> None:
    workloads = [replace(one, audit=data.draw(st.booleans())) for one in workloads]
    snapshot = snapshot_of(workloads, policy, enforcement=enforcement, allow_localhost=allow_localhost)
    asked = everybody(workloads)
    there = cluster_world(snapshot, asked, Known(facts_of(workloads)))
    ends = sorted(there.world.ends)
    for _ in range(12):
        source, destination = data.draw(st.sampled_from(ends)), data.draw(st.sampled_from(ends))
        question = Question(
            source, destination, data.draw(st.sampled_from(PROTOCOLS)), data.draw(st.sampled_from(PORTS))
        )
        found = trace(there.world, question)
        assert found.verdict == sides(there.world, question).verdict
        assert contradictions(found) == []


@settings(max_examples=150, deadline=None)
@given(clusters(), st.lists(rules(), max_size=4), st.data())
def test_a_flow_is_judged_on_both_sides_wherever_its_ends_are(
    workloads: list[Workload], policy: list[PolicyRule], data: st.DataObject
) -> None:
    who = parties(workloads)[: 2 * len(workloads)]  # an IPv4 and an IPv6 address of each
    snapshot = snapshot_of(_fixed(workloads), policy)
    there = cluster_world(snapshot, [AddressParty(one.address) for one in who])
    family = data.draw(st.sampled_from((0, 1)))
    for _ in range(12 if len(workloads) > 1 else 0):
        source, destination = data.draw(st.permutations(who[family::2]))[:2]
        protocol = data.draw(st.sampled_from((TCP, UDP, ICMPV6 if family else ICMP)))
        port = DestinationPort(protocol, data.draw(st.sampled_from(PORTS)))
        (flow,) = there.flows(AddressParty(source.address), AddressParty(destination.address), port)
        expected = allowed(policy, source, destination, protocol, port.number, egress=True) and allowed(
            policy, destination, source, protocol, port.number, egress=False
        )
        assert (there.trace(flow).verdict == "allowed") is expected


@settings(max_examples=150, deadline=None)
@given(clusters(), st.lists(rules(), max_size=4), st.data())
def test_a_side_is_judged_as_its_own_host_judges_it(
    workloads: list[Workload], policy: list[PolicyRule], data: st.DataObject
) -> None:
    """A host compiles the whole cluster, and of other nodes' workloads it knows the addresses that are fixed."""
    fixed = _fixed(workloads)
    workloads = [data.draw(st.sampled_from(pair)) for pair in zip(workloads, fixed, strict=True)]
    snapshot, facts = snapshot_of(workloads, policy), facts_of(workloads)
    there = cluster_world(snapshot, [AddressParty(one.address) for one in parties(workloads)], Known(facts))
    judging = compile_judging(snapshot, _as_known_here(workloads, facts), CompileCache())
    rows, ipcache = PolicyRows(judging.policy), Ipcache(judging.ipcache)
    if len(workloads) == 1:
        return
    subject, peer = (
        facts.endpoints[one.reference] for one in (workloads[0], data.draw(st.sampled_from(workloads[1:])))
    )
    for own, other in ((subject.address4, peer.address4), (subject.address6, peer.address6)):
        assert own
        assert other
        asked = DestinationPort(data.draw(st.sampled_from((TCP, UDP))), data.draw(st.sampled_from(PORTS)))
        judged = rows.judge(
            ipcache.find(own),
            ipcache.find(other).identity,
            egress=True,
            protocol=asked.protocol,
            port=asked.number,
        )
        (flow,) = there.flows(AddressParty(own), AddressParty(other), asked)
        found = there.judge(flow).egress
        assert found is not None
        assert found.word is judged.word


def _as_known_here(workloads: Sequence[Workload], facts: Facts) -> Facts:
    """Without the addresses that only other nodes know."""
    endpoints = dict(facts.endpoints)
    for one in workloads:
        if one.node != HERE:
            endpoints[one.reference] = replace(endpoints[one.reference], address4=one.address4, address6=one.address6)
    return replace(facts, endpoints=endpoints)


def _fixed(workloads: Sequence[Workload]) -> list[Workload]:
    """With the addresses that they have, so that other nodes know them."""
    endpoints = [facts_of(workloads).endpoints[one.reference] for one in workloads]
    return [
        replace(one, address4=endpoint.address4, address6=endpoint.address6)
        for one, endpoint in zip(workloads, endpoints, strict=True)
    ]
