"""Entries that change nothing because of another one are said to; those that matter are not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.model.cluster import AllowLocalhost, Enforcement
from reconciler.model.policy import CidrPeer, L7Rules, PolicyRule, PortMatch, RuleItem
from reconciler.model.selector import Selector

from .lints import said
from .worlds import ANYBODY, HOST, TCP, UDP, app, cidr, item, peers, rule, tcp


def entry(field: str, *who: Selector, ports: tuple[PortMatch, ...] | None = None, deny: bool = False) -> RuleItem:
    return item(field, peers(*who) or None, ports, deny=deny)


NARROW = rule(app("web"), (entry("ingress[0]", app("client"), ports=(tcp(80),)),), name="narrow")


@pytest.mark.parametrize(
    "wide",
    [
        rule(app("web"), (entry("ingress[0]", app("client"), app("db"), ports=(tcp(80),)),), name="wide"),
        rule(app("web"), (entry("ingress[0]", app("client"), ports=(tcp(79, 90),)),), name="wide"),
        rule(app("web"), (entry("ingress[0]", app("client")),), name="wide"),
        rule(app("web"), (item("ingress[0]", None, (PortMatch(TCP),)),), name="wide"),
        rule(app("web"), (item("ingress[0]", (ANYBODY,)),), name="wide"),
        rule(Selector(), (entry("ingress[0]", app("client"), ports=(tcp(80),)),), name="wide"),
    ],
)
def test_an_entry_that_a_wider_one_covers_adds_nothing(wide: PolicyRule) -> None:
    expected = (
        "ingress[0] of NetworkPolicy/default/narrow adds nothing: "
        "ingress[0] of NetworkPolicy/default/wide at networkpolicy/policy.yaml:10 allows all of it"
    )
    assert said(NARROW, wide) == [expected]
    assert said(wide, NARROW) == [expected]


@pytest.mark.parametrize(
    "other",
    [
        rule(app("web"), (entry("ingress[0]", app("db"), ports=(tcp(80),)),), name="other"),
        rule(app("web"), (entry("ingress[0]", app("client"), ports=(tcp(81, 90),)),), name="other"),
        rule(app("web"), (item("ingress[0]", None, (PortMatch(UDP),)),), name="other"),
        rule(app("db"), (entry("ingress[0]", app("client")),), name="other"),
        rule(app("web"), egress=(entry("egress[0]", app("client")),), name="other"),
        rule(app("web"), (entry("ingress[0]", app("client")),), name="other", audit=True),
        rule(app("web"), (replace(entry("ingress[0]", app("client")), l7=L7Rules("http", "[]")),), name="other"),
    ],
)
def test_an_entry_beside_one_that_does_not_cover_it_is_not_warned_of(other: PolicyRule) -> None:
    assert said(NARROW, other) == []


def test_of_two_equal_entries_the_later_is_said() -> None:
    again = replace(NARROW, name="again")
    assert [message.partition(" adds")[0] for message in said(NARROW, again)] == [
        "ingress[0] of NetworkPolicy/default/again"
    ]


def test_an_allow_that_a_deny_covers_allows_nothing() -> None:
    deny = rule(Selector(), (entry("ingressDeny[0]", app("client"), deny=True),), name="deny")
    [message] = said(NARROW, deny)
    assert message.startswith("ingress[0] of NetworkPolicy/default/narrow allows nothing: ingressDeny[0] of ")


def test_a_deny_is_never_covered_by_an_allow() -> None:
    deny = rule(app("web"), (entry("ingressDeny[0]", app("client"), ports=(tcp(80),), deny=True),), name="deny")
    allow = rule(app("web"), (entry("ingress[0]", app("client"), ports=(tcp(79, 90),)),), name="allow")
    assert said(deny, allow) == []


@pytest.mark.parametrize(
    ("inner", "outer", "warned"),
    [
        (cidr("10.1.0.0/16"), cidr("10.0.0.0/9"), True),
        (cidr("203.0.113.0/25"), cidr("203.0.113.0/24"), True),
        (cidr("203.0.113.0/25"), cidr("203.0.113.0/24", "203.0.113.0/26"), False),
        (cidr("203.0.113.0/25", "203.0.113.0/26"), cidr("203.0.113.0/24", "203.0.113.0/26"), True),
        (cidr("203.0.113.0/25"), cidr("0.0.0.0/0"), True),
        (cidr("203.0.113.0/25", workloads=True), cidr("203.0.113.0/24"), False),
        (cidr("203.0.113.0/25", workloads=True), cidr("203.0.113.0/24", workloads=True), True),
    ],
)
def test_cidrs_cover_what_lies_inside_them(inner: CidrPeer, outer: CidrPeer, warned: bool) -> None:
    entries = (item("egress[0]", (inner,)), item("egress[1]", (outer,)))
    found = said(rule(app("web"), egress=entries), ipblock_matches_workloads=True)
    assert any("adds nothing" in message for message in found) is warned


# Denials that change nothing


DENY_CLIENT = entry("ingressDeny[0]", app("client"), ports=(tcp(22),), deny=True)


def test_a_deny_alone_isolates_so_that_it_denies_what_nothing_allows() -> None:
    [message] = said(rule(app("web"), (DENY_CLIENT,)))
    assert message.startswith("ingressDeny[0] of NetworkPolicy/default/policy denies what nothing allows, and nothing")
    assert message.endswith("set enableDefaultDeny to false")


def test_a_deny_beside_allows_of_others_denies_what_nothing_allows() -> None:
    [message] = said(rule(app("web"), (DENY_CLIENT,)), NARROW)
    assert message.endswith("denies what nothing allows")


@pytest.mark.parametrize(
    "beaten",
    [
        rule(app("web"), (entry("ingress[0]", app("client"), ports=(tcp(20, 30),)),), name="other"),
        rule(app("web"), (item("ingress[0]", None, (PortMatch(TCP, name="http"),)),), name="other"),
        rule(app("web"), (item("ingress[0]", (ANYBODY,)),), name="other"),
    ],
)
def test_a_deny_that_beats_an_allow_is_not_warned_of(beaten: PolicyRule) -> None:
    assert said(rule(app("web"), (DENY_CLIENT,)), beaten) == []


def test_a_deny_that_isolates_nobody_beats_the_default() -> None:
    assert said(rule(app("web"), (DENY_CLIENT,), isolates_ingress=False)) == []


def test_a_deny_of_everything_is_a_guard() -> None:
    guard = item("ingressDeny[0]", (ANYBODY,), deny=True)
    assert said(rule(app("web"), (guard,))) == []


def test_a_deny_of_the_host_beats_what_is_allowed_to_it() -> None:
    deny = rule(app("web"), (item("ingressDeny[0]", (HOST,), (tcp(22),), deny=True),))
    assert said(deny, allow_localhost=AllowLocalhost.ALWAYS) == []
    assert len(said(deny, allow_localhost=AllowLocalhost.POLICY)) == 1


def test_where_nothing_is_enforced_nothing_is_shadowed() -> None:
    assert said(NARROW, replace(NARROW, name="again"), enforcement=Enforcement.NEVER) == []


def test_where_everything_is_enforced_a_deny_alone_changes_nothing() -> None:
    deny = rule(app("web"), (DENY_CLIENT,), isolates_ingress=False)
    assert len(said(deny, enforcement=Enforcement.ALWAYS)) == 1
