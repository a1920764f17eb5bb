"""Policy rows of single cases that have tripped others, each by a verdict."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import numpy as np
import pytest

from reconciler.compile.budget import Budget
from reconciler.compile.cache import CompileCache
from reconciler.compile.contents import Contents
from reconciler.compile.host import compile_host
from reconciler.errors import CompileError
from reconciler.model.cluster import AllowLocalhost, Enforcement, NamedPort
from reconciler.model.datapath import PolicyFlag, Verdict
from reconciler.model.identity import FIRST_LOCAL
from reconciler.model.policy import L7Rules, Peer, PortMatch, RuleItem

from .lookup import identity_of, judge, policy_rows
from .worlds import (
    HOST_ADDRESS,
    PROGRAMS,
    TCP,
    THERE,
    UDP,
    WORLD,
    address_of,
    app,
    cidr,
    compiled,
    facts_of,
    item,
    origin,
    peers,
    rule,
    snapshot_of,
    tcp,
    workload,
)

WEB = workload("web", {"app": "web"})
CLIENT = workload("client", {"app": "client"})
STRANGER = workload("stranger", {"app": "stranger"}, THERE)
ALL = (WEB, CLIENT, STRANGER)
WEB_AT, CLIENT_AT, STRANGER_AT = (address_of(one, ALL) for one in ALL)
OUTSIDE = IPv4Address("203.0.113.9")
FROM_CLIENT = rule(app("web"), (item("ingress[0]", peers(app("client")), (tcp(80),)),))


def test_without_rules_everything_passes_and_one_row_a_direction_says_so() -> None:
    desired = compiled([WEB])
    rows = policy_rows(desired)
    assert len(rows) == 2
    assert judge(desired, WEB_AT, OUTSIDE, TCP, 80).verdict is Verdict.ALLOW
    assert {desired.rules[int(cookie)].field for cookie in rows.values["cookie"]} == {"policy.enforcement"}


def test_an_isolated_workload_takes_only_what_is_allowed() -> None:
    desired = compiled(ALL, [FROM_CLIENT])
    assert judge(desired, WEB_AT, CLIENT_AT, TCP, 80).verdict is Verdict.ALLOW
    assert judge(desired, WEB_AT, CLIENT_AT, TCP, 81).verdict is Verdict.DEFAULT_DENY
    assert judge(desired, WEB_AT, CLIENT_AT, UDP, 80).verdict is Verdict.DEFAULT_DENY
    assert judge(desired, WEB_AT, STRANGER_AT, TCP, 80).verdict is Verdict.DEFAULT_DENY
    assert judge(desired, WEB_AT, STRANGER_AT, TCP, 80, egress=True).verdict is Verdict.ALLOW


def test_every_row_knows_the_entry_it_comes_from() -> None:
    desired = compiled(ALL, [FROM_CLIENT])
    allowed, denied = judge(desired, WEB_AT, CLIENT_AT, TCP, 80), judge(desired, WEB_AT, STRANGER_AT, TCP, 80)
    assert desired.rules[allowed.cookie].field == "ingress[0]"
    assert desired.rules[allowed.cookie].origin.line == 10
    assert desired.rules[denied.cookie].field == "ingress"
    assert desired.rules[denied.cookie].reference == "NetworkPolicy/default/policy"
    rows = policy_rows(desired)
    for place, cookie in zip(rows.origin_of.tolist(), rows.values["cookie"].tolist(), strict=True):
        assert rows.origins[place] == desired.rules[cookie].origin


def test_any_peer_is_one_row_and_not_one_for_each() -> None:
    others = [workload(f"w{number}", {"app": f"app{number}"}) for number in range(50)]
    desired = compiled([WEB, *others], [rule(app("web"), (item("ingress[0]", None, (tcp(80),)),))])
    rows = policy_rows(desired)
    mine = (rows.keys["subject"] == identity_of(desired, WEB_AT)) & (rows.keys["egress"] == 0)
    assert np.count_nonzero(mine) == 2


def test_a_broad_deny_beats_a_narrow_allow_of_an_exact_peer() -> None:
    deny = rule(app("web"), (item("ingressDeny[0]", None, None, deny=True),), name="deny")
    assert judge(compiled(ALL, [FROM_CLIENT, deny]), WEB_AT, CLIENT_AT, TCP, 80).verdict is Verdict.DENY


def test_an_exception_is_no_deny_for_another_entry() -> None:
    wide = item("ingress[0]", (cidr("203.0.113.0/24", "203.0.113.8/29"),))
    narrow = item("ingress[1]", (cidr("203.0.113.9/32"),), (tcp(80),))
    desired = compiled([WEB], [rule(app("web"), (wide, narrow))])
    assert judge(desired, WEB_AT, IPv4Address("203.0.113.7"), TCP, 99).verdict is Verdict.ALLOW
    assert judge(desired, WEB_AT, IPv4Address("203.0.113.8"), TCP, 80).verdict is Verdict.DEFAULT_DENY
    assert judge(desired, WEB_AT, OUTSIDE, TCP, 80).verdict is Verdict.ALLOW
    assert judge(desired, WEB_AT, OUTSIDE, TCP, 81).verdict is Verdict.DEFAULT_DENY


def test_world_covers_the_cidrs_of_other_rules() -> None:
    entries = (item("ingress[0]", (WORLD,), (tcp(80),)), item("ingress[1]", (cidr("203.0.113.0/24"),), (tcp(81),)))
    desired = compiled(ALL, [rule(app("web"), entries)])
    assert judge(desired, WEB_AT, OUTSIDE, TCP, 80).verdict is Verdict.ALLOW
    assert judge(desired, WEB_AT, OUTSIDE, TCP, 81).verdict is Verdict.ALLOW
    assert judge(desired, WEB_AT, CLIENT_AT, TCP, 80).verdict is Verdict.DEFAULT_DENY


def test_a_cidr_matches_workloads_only_where_it_says_so() -> None:
    inside = f"{CLIENT_AT}/32"
    plain = compiled(ALL, [rule(app("web"), (item("ingress[0]", (cidr(inside),)),))])
    block = compiled(ALL, [rule(app("web"), (item("ingress[0]", (cidr(inside, workloads=True),)),))])
    assert judge(plain, WEB_AT, CLIENT_AT, TCP, 80).verdict is Verdict.DEFAULT_DENY
    assert judge(block, WEB_AT, CLIENT_AT, TCP, 80).verdict is Verdict.ALLOW


def test_an_ipblock_tells_two_workloads_of_one_identity_apart() -> None:
    twins = [workload("one", {"app": "twin"}), workload("two", {"app": "twin"})]
    first, second = (address_of(one, [WEB, *twins]) for one in twins)
    block = rule(app("web"), (item("ingress[0]", (cidr(f"{first}/32", workloads=True),)),))
    desired = compiled([WEB, *twins], [block])
    assert judge(desired, WEB_AT, first, TCP, 80).verdict is Verdict.ALLOW
    assert judge(desired, WEB_AT, second, TCP, 80).verdict is Verdict.DEFAULT_DENY
    assert identity_of(desired, first) in desired.identities
    assert identity_of(desired, first) >= FIRST_LOCAL


def test_named_ports_of_one_identity_may_differ_by_workload() -> None:
    here, there = NamedPort("http", 80, TCP), NamedPort("http", 8080, TCP)
    twins = [workload("one", {"app": "web"}, ports=[here]), workload("two", {"app": "web"}, ports=[there])]
    everyone = [*twins, CLIENT]
    first, second, client = (address_of(one, everyone) for one in everyone)
    wanted = (PortMatch(TCP, name="http"),)
    policy = [
        rule(app("web"), (item("ingress[0]", None, wanted),)),
        rule(app("client"), egress=(item("egress[0]", peers(app("web")), wanted),), name="client"),
    ]
    desired = compiled(everyone, policy)
    for address, open_port, closed_port in ((first, 80, 8080), (second, 8080, 80)):
        assert judge(desired, address, client, TCP, open_port).verdict is Verdict.ALLOW
        assert judge(desired, address, client, TCP, closed_port).verdict is Verdict.DEFAULT_DENY
        assert judge(desired, client, address, TCP, open_port, egress=True).verdict is Verdict.ALLOW
        assert judge(desired, client, address, TCP, closed_port, egress=True).verdict is Verdict.DEFAULT_DENY


def test_a_requirement_narrows_every_allow_and_allows_nothing() -> None:
    open_to_all = rule(app("web"), (item("ingress[0]", None),))
    requires = rule(app("web"), name="requires", requires_ingress=(app("client"),))
    desired = compiled(ALL, [open_to_all, requires])
    assert judge(desired, WEB_AT, CLIENT_AT, TCP, 80).verdict is Verdict.ALLOW
    assert judge(desired, WEB_AT, STRANGER_AT, TCP, 80).verdict is Verdict.DEFAULT_DENY
    assert judge(compiled(ALL, [requires]), WEB_AT, STRANGER_AT, TCP, 80).verdict is Verdict.ALLOW


def test_enforcement_always_isolates_and_never_opens() -> None:
    always = compiled([WEB], enforcement=Enforcement.ALWAYS)
    never = compiled(ALL, [FROM_CLIENT], enforcement=Enforcement.NEVER)
    assert judge(always, WEB_AT, OUTSIDE, TCP, 80).verdict is Verdict.DEFAULT_DENY
    assert judge(never, WEB_AT, STRANGER_AT, UDP, 1).verdict is Verdict.ALLOW
    assert len(policy_rows(never)) == 4


def test_localhost_passes_when_always_allowed_but_not_through_an_explicit_deny() -> None:
    deny = rule(app("web"), (item("ingressDeny[0]", None, (tcp(22),), deny=True),), name="deny")
    policy = compiled(ALL, [FROM_CLIENT, deny])
    always = compiled(ALL, [FROM_CLIENT, deny], allow_localhost=AllowLocalhost.ALWAYS)
    assert judge(policy, WEB_AT, HOST_ADDRESS, TCP, 80).verdict is Verdict.DEFAULT_DENY
    assert judge(always, WEB_AT, HOST_ADDRESS, TCP, 80).verdict is Verdict.ALLOW
    assert judge(always, WEB_AT, HOST_ADDRESS, TCP, 22).verdict is Verdict.DENY
    assert judge(always, WEB_AT, OUTSIDE, TCP, 80).verdict is Verdict.DEFAULT_DENY


def test_audit_rules_alone_record_and_let_pass() -> None:
    desired = compiled(ALL, [replace(FROM_CLIENT, audit=True)])
    denied = judge(desired, WEB_AT, STRANGER_AT, TCP, 80)
    assert denied.verdict is Verdict.DEFAULT_DENY
    assert denied.passes
    assert judge(desired, WEB_AT, CLIENT_AT, TCP, 80).verdict is Verdict.ALLOW


def test_audit_rules_neither_open_nor_close_beside_enforced_ones() -> None:
    audit_allow = rule(app("web"), (item("ingress[0]", peers(app("stranger"))),), name="allow", audit=True)
    audit_deny = rule(app("web"), (item("ingressDeny[0]", None, deny=True),), name="deny", audit=True)
    desired = compiled(ALL, [FROM_CLIENT, audit_allow, audit_deny])
    assert not judge(desired, WEB_AT, STRANGER_AT, TCP, 80).passes
    assert judge(desired, WEB_AT, CLIENT_AT, TCP, 80).verdict is Verdict.ALLOW
    assert len(desired.warnings) == 2


def test_two_specs_of_one_policy_have_different_cookies() -> None:
    second = rule(app("web"), (item("ingress[0]", peers(app("stranger"))),))
    desired = compiled(ALL, [FROM_CLIENT, second])
    first, other = judge(desired, WEB_AT, CLIENT_AT, TCP, 80), judge(desired, WEB_AT, STRANGER_AT, TCP, 80)
    assert first.cookie != other.cookie
    assert 0 not in desired.rules


def test_isolations_of_several_specs_draw_cookies_of_their_own() -> None:
    """So that one document with several does not cost every rule its cookies of last time."""
    specs = [rule(app("web"), (item(f"specs[{number}].ingress[0]", None),)) for number in range(2)]
    said = Contents().of(specs).values()
    assert [content.named[0] for content in said] == [("NetworkPolicy/default/policy", "ingress")] * 2
    assert len({cookie for content in said for cookie in content.drawn}) == 4


def test_cookies_survive_other_rules_and_another_order() -> None:
    other = rule(app("client"), (item("ingress[0]", None),), name="other")
    one, two = compiled(ALL, [FROM_CLIENT]), compiled(ALL, [other, FROM_CLIENT])
    assert one.rules.items() <= two.rules.items()


def http(field: str, who: tuple[Peer, ...] | None, first: int, last: int | None = None) -> RuleItem:
    return replace(item(field, who, (tcp(first, last),)), l7=L7Rules("http", "[]"))


def test_what_the_proxy_must_see_is_redirected_whatever_else_allows_it() -> None:
    narrow = item("ingress[1]", peers(app("client")), (tcp(80),))
    everything = item("ingress[2]", peers(app("client")))
    desired = compiled(ALL, [rule(app("web"), (http("ingress[0]", None, 80, 95), narrow, everything))])
    found = judge(desired, WEB_AT, CLIENT_AT, TCP, 80)
    assert (found.verdict, found.flags, desired.rules[found.cookie].field) == (
        Verdict.ALLOW,
        PolicyFlag.REDIRECT,
        "ingress[0]",
    )
    assert judge(desired, WEB_AT, CLIENT_AT, TCP, 81).flags is PolicyFlag.REDIRECT
    assert judge(desired, WEB_AT, CLIENT_AT, TCP, 96).flags is PolicyFlag(0)
    assert judge(desired, WEB_AT, STRANGER_AT, TCP, 96).verdict is Verdict.DEFAULT_DENY


def test_a_denial_comes_before_the_proxy() -> None:
    deny = item("ingressDeny[0]", peers(app("client")), deny=True)
    desired = compiled(ALL, [rule(app("web"), (http("ingress[0]", None, 80), deny))])
    assert judge(desired, WEB_AT, CLIENT_AT, TCP, 80).verdict is Verdict.DENY
    assert judge(desired, WEB_AT, STRANGER_AT, TCP, 80).flags is PolicyFlag.REDIRECT


def test_what_is_not_isolated_is_redirected_too() -> None:
    desired = compiled(ALL, [rule(app("web"), (http("ingress[0]", None, 80),), isolates_ingress=False)])
    assert judge(desired, WEB_AT, CLIENT_AT, TCP, 80).flags is PolicyFlag.REDIRECT
    assert judge(desired, WEB_AT, CLIENT_AT, TCP, 81).verdict is Verdict.ALLOW


def test_mapped_ipv4_cidrs_are_refused() -> None:
    with pytest.raises(CompileError, match="write them as IPv4"):
        compiled([WEB], [rule(app("web"), (item("ingress[0]", (cidr("::ffff:10.0.0.0/104"),)),))])


def test_over_the_budget_the_biggest_rules_are_named() -> None:
    others = [workload(f"w{number}", {"app": "many", "n": str(number)}) for number in range(20)]
    big = rule(app("web"), (item("ingress[0]", peers(app("many"))),), name="big")
    small = rule(app("web"), (item("ingress[0]", peers(app("web")), (tcp(80),)),), name="small")
    world = [WEB, *others]
    for budget in (Budget(subject_rows=15), Budget(policy_rows=15)):
        with pytest.raises(CompileError) as caught:
            compile_host(snapshot_of(world, [small, big]), facts_of(world), CompileCache(), PROGRAMS, budget)
        lines = str(caught.value).splitlines()
        assert lines[1].endswith("rows: NetworkPolicy/default/big at networkpolicy/policy.yaml:10")
        assert int(lines[1].split()[0]) > int(lines[2].split()[0])


def test_an_unchanged_subject_keeps_its_columns() -> None:
    cache = CompileCache()
    facts = facts_of(ALL)
    compile_host(snapshot_of(ALL, [FROM_CLIENT]), facts, cache, PROGRAMS)
    before = {number: made.rows for number, made in cache.policy.subjects.items()}
    changed = rule(app("client"), (item("ingress[0]", None),), name="other")
    compile_host(snapshot_of(ALL, [FROM_CLIENT, changed]), facts, cache, PROGRAMS)
    after = {number: made.rows for number, made in cache.policy.subjects.items()}
    web, client = (facts.endpoints[one.reference].identity for one in (WEB, CLIENT))
    assert after[web] is before[web]
    assert after[client] is not before[client]


def test_origins_name_documents() -> None:
    assert policy_rows(compiled([WEB])).origins[0] == origin("Cluster", "demo")
