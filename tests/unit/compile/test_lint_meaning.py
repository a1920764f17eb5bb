"""An entry that is said to change nothing can be left out: no verdict is another one without it, on random clusters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.compile.lint import lint
from reconciler.model.cluster import AllowLocalhost, Workload
from reconciler.model.policy import PolicyRule, RuleItem

from .oracle import Party, allowed
from .test_policy_meaning import PORTS, PROTOCOLS, clusters, parties, rules
from .worlds import snapshot_of

Found = tuple[int, bool, int]  # number of the rule, egress, number of the entry


def idle_entries(workloads: list[Workload], policy: list[PolicyRule]) -> list[Found]:
    snapshot = snapshot_of(workloads, policy, allow_localhost=AllowLocalhost.POLICY)
    messages = [warning.message for warning in lint(snapshot)]
    return [
        (number, egress, place)
        for number, rule in enumerate(policy)
        for egress, items in ((False, rule.ingress), (True, rule.egress))
        for place, item in enumerate(items)
        if any(said in message for message in messages for said in _sayings(rule, item))
    ]


def _sayings(rule: PolicyRule, item: RuleItem) -> Iterable[str]:
    name = f"{item.field} of {rule.reference} "
    return (f"{name}adds nothing: ", f"{name}allows nothing: ", f"{name}denies what nothing allows")


def without(policy: list[PolicyRule], found: Found) -> list[PolicyRule]:
    number, egress, place = found
    rule = policy[number]
    items = rule.egress if egress else rule.ingress
    kept = items[:place] + items[place + 1 :]
    changed = replace(rule, egress=kept) if egress else replace(rule, ingress=kept)
    return [*policy[:number], changed, *policy[number + 1 :]]


def verdicts(policy: list[PolicyRule], subjects: list[Party], peers: list[Party], *, egress: bool) -> list[bool]:
    return [
        allowed(policy, subject, peer, protocol, port, egress=egress)
        for subject in subjects
        for peer in peers
        for protocol in PROTOCOLS
        for port in PORTS
    ]


@settings(max_examples=100, deadline=None)
@given(clusters(), st.lists(rules(), min_size=1, max_size=4))
def test_an_entry_that_is_said_to_change_nothing_changes_nothing(
    workloads: list[Workload], drawn: list[PolicyRule]
) -> None:
    policy = [replace(rule, name=f"rule{number}") for number, rule in enumerate(drawn)]
    everyone = parties(workloads)
    subjects = everyone[: 2 * len(workloads)]
    for found in idle_entries(workloads, policy):
        egress = found[1]
        before = verdicts(policy, subjects, everyone, egress=egress)
        assert verdicts(without(policy, found), subjects, everyone, egress=egress) == before
