"""Whether rules for nodes leave a host its store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.compile.cache import CompileCache
from reconciler.compile.host import compile_host
from reconciler.host.cut_off import cut_off
from reconciler.host.target import Target
from reconciler.model.cluster import StoreChoice, StoreKind
from reconciler.model.policy import PolicyRule, Scope
from reconciler.model.selector import Selector
from tests.unit.compile.worlds import PROGRAMS, cidr, facts_of, item, rule, snapshot_of, tcp, workload

STORE = StoreChoice(StoreKind.ETCD, ("192.0.2.9:2379", "[2001:db8::9]:2379", "etcd.example.net:2379"))
FAR = "policies for nodes keep alpha from its store at {} port 2379: allow it in egress"


def warnings(*rules: PolicyRule) -> list[str]:
    workloads = [workload("web", {"app": "web"})]
    for_nodes = [replace(one, scope=Scope.NODES) for one in rules]
    snapshot, facts = snapshot_of(workloads, for_nodes, store=STORE), facts_of(workloads)
    target = Target(snapshot, facts, compile_host(snapshot, facts, CompileCache(), PROGRAMS))
    return [warning.message for warning in cut_off(target)]


def test_each_server_that_no_rule_allows_is_told() -> None:
    nowhere = rule(Selector(), egress=(item("egress[0]", None, (tcp(53),)),))
    assert warnings(nowhere) == [FAR.format("192.0.2.9"), FAR.format("2001:db8::9")]


@pytest.mark.parametrize(
    "rules",
    [
        (),
        (rule(Selector(), ingress=(item("ingress[0]", None, (tcp(22),)),)),),
        (rule(Selector(), egress=(item("egress[0]", None, (tcp(2379),)),)),),
        (rule(Selector(), egress=(item("egress[0]", (cidr("192.0.2.0/24"), cidr("2001:db8::/32"))),)),),
    ],
)
def test_a_host_that_may_reach_its_store_is_not_warned(rules: tuple[PolicyRule, ...]) -> None:
    assert warnings(*rules) == []
