"""Drift is blamed on who touched that table, and once only."""

from __future__ import annotations

from reconciler.daemon.suspects import Suspect, Suspects, reports
from reconciler.engine.change import DictDelta
from reconciler.engine.plan import Plan
from reconciler.engine.render import fields_of
from reconciler.model.network import Sysctl, SysctlKey
from reconciler.model.origin import Origin
from reconciler.observe.process import Process

BPFTOOL = Process(pid=812, command="bpftool map delete", user="root")
FORWARDING = SysctlKey("", "net/ipv4/ip_forward")


def _suspect(at_ns: int, *tables: str, process: Process | None = BPFTOOL) -> Suspect:
    return Suspect(at_ns, frozenset(tables), lambda: process, "" if process else "netlink does not name the writer")


def _plan() -> Plan:
    return Plan("c" * 40, "b" * 40, (DictDelta("sysctls", {FORWARDING: Sysctl("0")}, {FORWARDING: Sysctl("1")}),))


def test_the_last_one_at_the_table_is_suspected() -> None:
    suspects = Suspects()
    suspects.add(_suspect(1, "routes"))
    suspects.add(_suspect(2, "sysctls", process=Process(900, "sysctl", "root")))
    found = suspects.of("sysctls")
    assert found is not None
    assert found.process is not None
    assert found.process.pid == 900


def test_one_known_by_name_goes_before_one_who_is_not() -> None:
    suspects = Suspects()
    suspects.add(_suspect(1, "attachments"))
    suspects.add(_suspect(2, "attachments", process=None))
    found = suspects.of("attachments")
    assert found is not None
    assert found.process is BPFTOOL


def test_whoever_was_there_before_a_pass_is_not_blamed_after_it() -> None:
    suspects = Suspects()
    suspects.add(_suspect(1, "policy"))
    suspects.add(_suspect(9, "policy"))
    suspects.forget(before_ns=5)
    found = suspects.of("policy")
    assert found is not None
    assert found.at_ns == 9


def test_a_report_says_what_by_whom_and_how_fast() -> None:
    suspects = Suspects()
    suspects.add(_suspect(1_000_000, "sysctls"))
    (report,) = reports(_plan(), None, suspects, fields_of, 1_200_000, 1_400_000, "c" * 40)
    assert (report.table, report.what) == ("sysctls", "changed")
    assert report.keys == ("netns= name=net/ipv4/ip_forward",)
    assert report.by is BPFTOOL
    assert report.repaired_ms == 0.4


def test_a_report_names_the_documents_of_all_its_rows_once() -> None:
    one, other = (Origin(f"nodes/{name}.yaml", 1, "Node", name, "c" * 40) for name in ("one", "other"))
    origins = {SysctlKey("", "a"): one, SysctlKey("", "b"): other, SysctlKey("", "c"): one}
    rows = {key: Sysctl("1") for key in origins}
    plan = Plan("c" * 40, "b" * 40, (DictDelta("sysctls", {}, rows, origins),))
    (report,) = reports(plan, None, Suspects(), fields_of, 1, 2, "c" * 40)
    assert report.origins == (one, other)


def test_nobody_seen_is_said() -> None:
    (report,) = reports(_plan(), _plan(), Suspects(), fields_of, 1, 2, "c" * 40)
    assert report.by is None
    assert report.unknown_because == "nobody was seen"
    assert report.repaired_ms is None
