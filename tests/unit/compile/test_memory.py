"""What is remembered from one compile to the next makes it faster and changes nothing."""

from __future__ import annotations

from dataclasses import fields, replace
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.compile.cache import CompileCache
from reconciler.compile.contents import Contents
from reconciler.compile.host import Desired, compile_host
from reconciler.engine.rows import Columns
from reconciler.model.cluster import AllowLocalhost, Enforcement, Workload
from reconciler.model.policy import L7Rules, PolicyRule, RuleItem, Scope
from reconciler.model.snapshot import Snapshot
from reconciler.source import stamp

from .test_policy_meaning import clusters, rules
from .worlds import PROGRAMS, app, facts_of, item, peers, rule, snapshot_of, tcp

RULE = rule(app("web"), (item("ingress[0]", peers(app("client")), (tcp(80),)),))
HOSTS = (frozenset((ip_address("192.0.2.1"),)), frozenset((ip_address("192.0.2.9"), ip_address("fd00::9"))))
OTHER_ENTRY = {
    "field": "ingress[1]",
    "peers": None,
    "ports": None,
    "deny": True,
    "l7": L7Rules("http", "[]"),
}
OTHER_RULE = {
    "kind": "CiliumNetworkPolicy",
    "namespace": "shop",
    "name": "other",
    "subject": app("client"),
    "scope": Scope.NODES,
    "ingress": (),
    "egress": RULE.ingress,
    "isolates_ingress": False,
    "isolates_egress": True,
    "requires_ingress": (app("client"),),
    "requires_egress": (app("client"),),
    "audit": True,
}


def test_every_field_but_the_origin_is_tried_here() -> None:
    assert {one.name for one in fields(PolicyRule)} == OTHER_RULE.keys() | {"origin"}
    assert {one.name for one in fields(RuleItem)} == OTHER_ENTRY.keys() | {"origin"}


@pytest.mark.parametrize("field", OTHER_RULE)
def test_a_rule_that_says_something_else_has_another_content(field: str) -> None:
    _is_told_apart(replace(RULE, **{field: OTHER_RULE[field]}))  # type: ignore[arg-type]


@pytest.mark.parametrize("field", OTHER_ENTRY)
def test_so_has_one_with_another_entry(field: str) -> None:
    entry = replace(RULE.ingress[0], **{field: OTHER_ENTRY[field]})  # type: ignore[arg-type]
    _is_told_apart(replace(RULE, ingress=(entry,)))


def _is_told_apart(changed: PolicyRule) -> None:
    contents = Contents()
    (before,) = contents.of([RULE]).values()
    (after,) = contents.of([changed]).values()
    assert after is not before


def test_a_rule_at_another_place_and_commit_keeps_its_content() -> None:
    contents = Contents()
    (before,) = contents.of([RULE]).values()
    (after,) = contents.of([stamp.policy(RULE, "elsewhere.yaml", "f" * 40)]).values()
    assert after is before


def test_a_rule_that_others_come_before_keeps_its_content() -> None:
    contents = Contents()
    (before,) = contents.of([RULE]).values()
    added = replace(RULE, name="added")
    assert contents.of([added, RULE])[id(RULE)] is before
    assert contents.of([RULE])[id(RULE)] is before


@settings(max_examples=100, deadline=None)
@given(st.data(), clusters(), clusters())
def test_a_compile_after_others_is_as_the_first(
    data: st.DataObject, workloads: list[Workload], others: list[Workload]
) -> None:
    cache = CompileCache()
    pool = data.draw(st.lists(rules(), min_size=1, max_size=5))
    for number in range(4):
        chosen = data.draw(st.lists(st.sampled_from(pool), max_size=6))
        there = data.draw(st.sampled_from((workloads, others)))
        there = [replace(one, audit=data.draw(st.booleans())) for one in there]
        mode, localhost = data.draw(st.sampled_from(Enforcement)), data.draw(st.sampled_from(AllowLocalhost))
        snapshot = snapshot_of(there, chosen, enforcement=mode, allow_localhost=localhost)
        snapshot = _as_a_commit(snapshot, f"{number}" * 40)
        facts = replace(facts_of(there), host_addresses=data.draw(st.sampled_from(HOSTS)))
        remembering = compile_host(snapshot, facts, cache, PROGRAMS)
        assert _told(remembering) == _told(compile_host(snapshot, facts, CompileCache(), PROGRAMS))


def _as_a_commit(snapshot: Snapshot, commit: str) -> Snapshot:
    """With origins of its own, as every commit has."""
    return replace(
        snapshot,
        commit=commit,
        cluster=stamp.own(snapshot.cluster, "cluster.yaml", commit),
        workloads={key: stamp.own(one, f"{commit[0]}.yaml", commit) for key, one in snapshot.workloads.items()},
        rules=tuple(stamp.policy(one, f"{commit[0]}.yaml", commit) for one in snapshot.rules),
    )


def _told(desired: Desired) -> object:
    tables = []
    for name in ("policy", "ipcache"):
        table = desired.tables[name]
        assert isinstance(table, Columns)
        rows = zip(table.keys.tolist(), table.values.tolist(), map(table.origin, range(len(table))), strict=True)
        tables.append(sorted(rows, key=lambda row: row[0]))
    return tables, dict(desired.rules), desired.identities, desired.warnings
