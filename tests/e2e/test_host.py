"""A host without a daemon, in this process: transactions that were left open, the way back, what is held."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.errors import ApplyError, PlanStale, ProbeFailed, UsageError
from reconciler.host import Host
from reconciler.kernel import netns
from reconciler.kernel.netns import inside
from tests.e2e.daemon_host import DaemonHost, document, made_host, make_namespace, policy

pytestmark = pytest.mark.root


@pytest.fixture
def made(tmp_path: Path) -> Iterator[DaemonHost]:
    with made_host(tmp_path, "web", started=False) as found:
        yield found


@pytest.fixture
def host(made: DaemonHost) -> Iterator[Host]:
    """At the repository's first commit."""
    with inside(made.path), Host.open(made.config) as opened:
        opened.converge(made.git("rev-parse", "HEAD"))
        yield opened


def _commit(made: DaemonHost, name: str) -> str:
    made.write(f"policies/{name}.yaml", policy(name, "web", ingress=[]))
    return made.commit()


def test_a_transaction_that_was_left_open_is_undone_before_the_next(made: DaemonHost, host: Host) -> None:
    commit = _commit(made, "closed")
    host.journal.open(host.plan(commit))
    assert host.converge(commit) is not None
    assert not host.journal.unfinished
    assert host.base == commit
    assert [record.reason for record in host.journal.history(2)] == ["", "interrupted"]


def test_a_transaction_that_was_left_open_is_undone_even_if_nothing_else_changes(made: DaemonHost, host: Host) -> None:
    base = host.base
    host.journal.open(host.plan(_commit(made, "closed")))
    host.converge(base)
    assert not host.journal.unfinished
    assert not host.plan(base)


def test_a_foreign_link_in_the_way_is_found_before_anything_is_written(made: DaemonHost, host: Host) -> None:
    elsewhere = made.inside("elsewhere")
    make_namespace(elsewhere)
    made.ip("link", "add", "eth0", "type", "bridge", netns=elsewhere)
    made.write("workloads/web.yaml", made.workload("web", netns=elsewhere))
    before, links = host.journal.history(), made.ip("link", netns=made.inside("web"))
    with pytest.raises(ApplyError, match=r"link eth0 in .*-elsewhere is there and is not ours; nothing was changed"):
        host.converge(made.commit())
    assert host.journal.history() == before
    assert made.ip("link", netns=made.inside("web")) == links


def test_what_was_left_out_for_a_missing_namespace_is_written_once_it_is_there(made: DaemonHost, host: Host) -> None:
    made.write("workloads/ghost.yaml", made.workload("ghost"))
    commit = made.commit()
    record = host.converge(commit)
    assert record is not None
    assert [note.partition(":")[0] for note in record.notes] == ["workloads/ghost.yaml"]
    assert host.converge(commit) is None
    make_namespace(made.inside("ghost"))
    record = host.converge(commit)
    assert record is not None
    assert record.notes == ()
    assert "eth0" in made.ip("link", netns=made.inside("ghost"))


def test_a_plan_is_stale_once_a_namespace_of_it_went(made: DaemonHost, host: Host) -> None:
    make_namespace(made.inside("late"))
    made.write("workloads/late.yaml", made.workload("late"))
    plan = host.plan(made.commit())
    netns.remove(made.inside("late"))
    before = host.journal.history()
    with pytest.raises(PlanStale, match=r"no network namespace at .*-late any more; nothing was changed"):
        host.apply(plan)
    assert host.journal.history() == before


def test_a_second_rollback_goes_further_back(made: DaemonHost, host: Host) -> None:
    first, second, third = host.base, _commit(made, "one"), _commit(made, "two")
    host.converge(second)
    host.converge(third)
    host.rollback()
    assert host.base == second
    host.rollback()
    assert host.base == first
    with pytest.raises(UsageError, match="no commit before"):
        host.rollback()


def test_a_rollback_that_fails_holds_nothing_back(made: DaemonHost, host: Host) -> None:
    first, second = host.base, _commit(made, "one")
    host.converge(second)
    host.journal.open(host.plan(first))
    (made.config.state_directory / "journal" / "open.json").write_bytes(b'{"format": 99}')
    with pytest.raises(ApplyError, match="format 99"):
        host.rollback()
    assert host.hold.held == ""
    (made.config.state_directory / "journal" / "open.json").unlink()
    host.rollback()
    assert (host.base, host.hold.held) == (first, second)


def test_a_plan_is_stale_once_the_host_is_at_another_commit(made: DaemonHost, host: Host) -> None:
    second, third = _commit(made, "one"), made.commit()
    plan = host.plan(third)
    host.converge(second)
    with pytest.raises(PlanStale, match=f"this host is at {second[:12]}, not at"):
        host.apply(plan)


def test_a_number_that_nobody_uses_is_marked_and_used_again(made: DaemonHost, host: Host) -> None:
    first = host.base
    known = {row["identity"] for row in host.listing().identities()}
    made.write("workloads/web.yaml", made.workload("web", labels={"app": "other"}))
    host.converge(made.commit())
    host.converge(first)
    assert {row["identity"] for row in host.listing().identities()} == known


def test_a_workload_that_moves_to_another_namespace_is_whole_at_once(made: DaemonHost, host: Host) -> None:
    elsewhere = made.inside("elsewhere")
    make_namespace(elsewhere)
    made.write("workloads/web.yaml", made.workload("web", netns=elsewhere))
    commit = made.commit()
    assert host.converge(commit) is not None
    assert not host.plan(commit)
    assert "eth0" in made.ip("link", netns=elsewhere)
    assert "eth0" not in made.ip("link", netns=made.inside("web"))


def test_a_workload_takes_over_anothers_interface_in_one_commit(made: DaemonHost, host: Host) -> None:
    (made.tree / "workloads/web.yaml").unlink()
    made.write("workloads/heir.yaml", made.workload("heir", netns=made.inside("web")))
    commit = made.commit()
    assert host.converge(commit) is not None
    assert not host.plan(commit)
    assert [one["workload"] for one in host.listing().endpoints()] == ["default/heir"]
    assert _altnames(made, "web") == [f"plumb-{host.listing().endpoints()[0]['device']}"]


def test_a_takeover_that_fails_leaves_the_one_before(made: DaemonHost, host: Host) -> None:
    base = host.base
    (made.tree / "workloads/web.yaml").unlink()
    made.write("workloads/heir.yaml", made.workload("heir", netns=made.inside("web")))
    probe = {"name": "cannot hold", "from": "default/heir", "to": "192.0.2.1", "port": 9, "timeout": 0.2}
    made.write("cluster.yaml", document("Cluster", "demo", {"probes": [probe]}))
    before = made.ip("-4", "address", netns=made.inside("web")), made.ip("route", netns=made.inside("web"))
    with pytest.raises(ProbeFailed, match="cannot hold"):
        host.converge(made.commit())
    assert not host.plan(base)
    after = made.ip("-4", "address", netns=made.inside("web")), made.ip("route", netns=made.inside("web"))
    assert _without_numbers(after) == _without_numbers(before)


def test_two_workloads_change_places_in_one_commit(made: DaemonHost, host: Host) -> None:
    elsewhere = made.inside("elsewhere")
    make_namespace(elsewhere)
    made.write("workloads/other.yaml", made.workload("other", netns=elsewhere))
    host.converge(made.commit())
    made.write("workloads/other.yaml", made.workload("other", netns=made.inside("web")))
    made.write("workloads/web.yaml", made.workload("web", netns=elsewhere))
    commit = made.commit()
    assert host.converge(commit) is not None
    assert not host.plan(commit)
    (web,) = (one for one in host.listing().endpoints() if one["workload"] == "default/web")
    assert _altnames(made, "elsewhere") == [f"plumb-{web['device']}"]


def _altnames(made: DaemonHost, place: str) -> list[str]:
    (link,) = json.loads(made.ip("-j", "link", "show", "dev", "eth0", netns=made.inside(place)))
    return list(link["altnames"])


def _without_numbers(shown: tuple[str, ...]) -> list[str]:
    """Without those of links, which are new whenever a pair is."""
    return [re.sub(r"\d+: eth0@if\d+|link-netnsid \d+", "eth0", one) for one in shown]
