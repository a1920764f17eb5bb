"""Policy routing rules as a table, in the real kernel."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from reconciler.errors import KernelError
from reconciler.kernel.rules import RulesTable
from reconciler.model.network import Rule, RuleKey

from .hands import ip

KEY4, KEY6 = RuleKey("", 4, 100), RuleKey("", 6, 100)
RULE4 = Rule(100, mark=0x200, mark_mask=0xF00, source=ip_network("10.0.0.0/8"), in_ifname="veth0")
RULE6 = Rule(1000, destination=ip_network("fd00::/8"))


@pytest.fixture
def rules(host: str) -> RulesTable:
    return RulesTable()


@pytest.fixture
def made(rules: RulesTable) -> RulesTable:
    rules.write({KEY4: RULE4, KEY6: RULE6}, ())
    return rules


def test_written_rules_read_as_they_were_written(made: RulesTable) -> None:
    assert made.live().rows == {KEY4: RULE4, KEY6: RULE6}
    assert made.live([KEY6]).rows == {KEY6: RULE6}


def test_writing_again_changes_nothing(made: RulesTable) -> None:
    before = ip("rule")
    made.write({KEY4: RULE4, KEY6: RULE6}, ())
    assert ip("rule") == before


def test_a_rule_in_a_workload_is_kept_apart(made: RulesTable, workload: str) -> None:
    key = RuleKey(workload, 4, 100)
    rules = RulesTable(lambda: [workload])
    rules.write({key: RULE4}, ())
    assert rules.live().rows == {KEY4: RULE4, KEY6: RULE6, key: RULE4}


def test_deleting_what_is_gone_is_success(made: RulesTable) -> None:
    made.write({}, [KEY4, KEY6])
    made.write({}, [KEY4, KEY6])
    assert made.live().rows == {}
    assert "100:" not in ip("rule")


@pytest.mark.parametrize(
    "rule",
    [
        "lookup 101 fwmark 0x200/0xf00 from 10.0.0.0/8 iif veth0",
        "lookup 100 fwmark 0x100/0xf00 from 10.0.0.0/8 iif veth0",
        "lookup 100 fwmark 0x200/0x200 from 10.0.0.0/8 iif veth0",
        "lookup 100 fwmark 0x200/0xf00 from 10.0.0.0/9 iif veth0",
        "lookup 100 fwmark 0x200/0xf00 from 10.0.0.0/8",
        "lookup 100 fwmark 0x200/0xf00 from 10.0.0.0/8 iif veth0 ipproto tcp",
        "lookup 100 fwmark 0x200/0xf00 from 10.0.0.0/8 iif veth0 suppress_prefixlength 0",
        "not lookup 100 fwmark 0x200/0xf00 from 10.0.0.0/8 iif veth0",
        "unreachable from 10.0.0.0/8",
    ],
)
def test_a_tampered_rule_differs_and_is_repaired(made: RulesTable, rule: str) -> None:
    before = ip("rule")
    ip("rule del priority 100")
    ip(f"rule add priority 100 protocol 112 {rule}")
    assert made.live().rows[KEY4] != RULE4
    made.write({KEY4: RULE4}, ())
    assert made.live().rows == {KEY4: RULE4, KEY6: RULE6}
    assert ip("rule") == before


def test_a_second_rule_beside_ours_differs_and_goes(made: RulesTable) -> None:
    ip("rule add priority 100 protocol 112 lookup 7")
    assert made.live().rows[KEY4] != RULE4
    made.write({KEY4: RULE4}, ())
    assert made.live().rows[KEY4] == RULE4


def test_a_foreign_rule_is_never_shown_or_deleted(rules: RulesTable) -> None:
    ip("rule add priority 100 lookup 7")
    assert rules.live().rows == {}
    rules.write({KEY4: RULE4}, ())
    rules.write({}, [KEY4])
    assert "lookup 7" in ip("rule show priority 100")


def test_the_same_rule_of_somebody_else_lives_beside_ours(rules: RulesTable) -> None:
    ip("rule add priority 100 lookup 100 fwmark 0x200/0xf00 from 10.0.0.0/8 iif veth0")
    before = ip("rule")
    rules.write({KEY4: RULE4}, ())
    assert rules.live().rows == {KEY4: RULE4}
    rules.write({}, [KEY4])
    assert ip("rule") == before


def test_a_row_that_no_rule_can_be_is_refused(rules: RulesTable) -> None:
    with pytest.raises(KernelError, match="IPv4 rule 100 cannot be written: it has no table"):
        rules.write({KEY4: Rule(0)}, ())
