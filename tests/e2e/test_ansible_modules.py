"""The modules, each for its family, on a host that is a namespace; the engine and the kernel are the real ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.engine.lock import host_lock
from reconciler.kernel import netns
from tests.e2e.fleet import NETNS, POLICY, Fleet, run

pytestmark = pytest.mark.root

# In the order in which the tables need each other; what comes later finds a part of its rows made already.
FAMILIES = ("plumb_link", "plumb_bpf_program", "plumb_policy", "plumb_endpoint", "plumb_route")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """One host, two workloads, one policy; nothing is applied yet and no daemon runs."""
    made = Fleet(tmp_path, tmp_path, tmp_path / "plumb", ("alpha",), ssh=False)
    try:
        made.up()
        made.write("policies/web.yaml", POLICY)
        made.commit("policy")
        made.configure("alpha")
        yield made
    finally:
        made.down()


@pytest.fixture
def converged(fleet: Fleet) -> Fleet:
    assert reconcile(fleet)["changed"]
    return fleet


@pytest.fixture
def followed(fleet: Fleet) -> Fleet:
    """A daemon keeps the host at the branch."""
    fleet.follow("alpha")
    assert reconcile(fleet)["after"]["commit"] == head(fleet)
    return fleet


def head(fleet: Fleet) -> str:
    return fleet.git("rev-parse", "HEAD")


def reconcile(fleet: Fleet, *flags: str, **arguments: Any) -> dict[str, Any]:
    return fleet.module("alpha", "plumb_reconcile", *flags, **{"commit": head(fleet), **arguments})


def devices(fleet: Fleet) -> list[str]:
    lines = run("ip", "-n", fleet.host("alpha"), "-o", "link", "show", "type", "veth").splitlines()
    return [line.split(": ")[1].split("@")[0] for line in lines]


def routes(fleet: Fleet) -> list[str]:
    return run("ip", "-n", fleet.host("alpha"), "route", "show", "proto", "112").splitlines()


def test_the_families_together_make_what_a_whole_run_makes(fleet: Fleet) -> None:
    for module in FAMILIES:
        assert fleet.module("alpha", module)["changed"], module
    left = reconcile(fleet, "--check")
    assert set(left["counts"]) == {"sysctls"}
    assert reconcile(fleet)["changed"]
    assert not reconcile(fleet)["changed"]


def test_a_check_of_any_family_writes_nothing(fleet: Fleet) -> None:
    before = fleet.snapshot()
    for module in ("plumb_link", "plumb_policy", "plumb_route"):
        planned = fleet.module("alpha", module, "--check")
        assert planned["changed"], planned
        assert planned["after"]
    assert fleet.snapshot() == before


def test_rendered_rows_carry_the_document_that_asked_for_them(fleet: Fleet) -> None:
    before = fleet.snapshot()
    rows = fleet.module("alpha", "plumb_policy", state="rendered", config=[{"table": "policy"}])["rendered"]
    assert {row["origin"]["path"] for row in rows} >= {"policies/web.yaml"}
    assert fleet.snapshot() == before


def test_a_route_that_was_taken_away_is_seen_and_brought_back(converged: Fleet) -> None:
    there = routes(converged)
    to_workload = next(route for route in there if not route.startswith("unreachable"))
    lost = to_workload.split()[0]
    run("ip", "-n", converged.host("alpha"), "route", "del", *to_workload.split())
    wanted = [{"table": "routes", "key": {"destination": f"{lost}/32"}}]
    assert converged.module("alpha", "plumb_route", state="gathered", config=wanted)["gathered"] == []
    made = converged.module("alpha", "plumb_route", state="merged", config=wanted)
    assert [row["key"]["destination"] for row in made["after"]] == [f"{lost}/32"]
    assert made["before"] == []
    assert routes(converged) == there


def test_merged_removes_nothing_and_replaced_does(converged: Fleet) -> None:
    there = routes(converged)
    device = devices(converged)[0]
    run("ip", "-n", converged.host("alpha"), "route", "add", "192.0.2.7/32", "dev", device, "proto", "112")
    assert not converged.module("alpha", "plumb_route", state="merged")["changed"]
    replaced = converged.module("alpha", "plumb_route", state="replaced")
    assert [row["key"]["destination"] for row in replaced["before"]] == ["192.0.2.7/32"]
    assert routes(converged) == there


def test_what_is_not_ours_is_neither_shown_nor_removed(converged: Fleet) -> None:
    host = converged.host("alpha")
    run("ip", "-n", host, "link", "add", "theirs", "type", "veth", "peer", "name", "other")
    gathered = converged.module("alpha", "plumb_link", state="gathered")["gathered"]
    assert sorted(row["key"] for row in gathered) == sorted(set(devices(converged)) - {"theirs", "other"})
    assert converged.module("alpha", "plumb_link", state="deleted")["changed"]
    assert sorted(devices(converged)) == ["other", "theirs"]


def test_deleted_takes_one_workload_away_and_leaves_the_other(converged: Fleet) -> None:
    one = [{"workload": "default/alpha-web"}]
    gone = converged.module("alpha", "plumb_link", state="deleted", config=one)
    assert gone["counts"] == {"links": "+0 ~0 -1"}
    assert len(devices(converged)) == 1
    assert not converged.module("alpha", "plumb_link", state="deleted", config=one)["changed"]
    assert set(reconcile(converged, "--check")["counts"]) >= {"links"}


def test_a_map_is_made_as_the_commit_says_and_only_the_one_that_was_named(converged: Fleet) -> None:
    emptied = converged.module("alpha", "plumb_bpf_map", state="deleted", maps=["ipcache"])
    assert set(emptied["counts"]) == {"ipcache"}
    assert not converged.module("alpha", "plumb_bpf_map", maps=["policy", "endpoints"])["changed"]
    filled = converged.module("alpha", "plumb_bpf_map", maps=["ipcache"])
    assert len(filled["after"]) == len(emptied["before"])


def test_a_name_that_fits_nothing_is_an_error(converged: Fleet) -> None:
    wrong = converged.module("alpha", "plumb_route", config=[{"key": {"destination": "203.0.113.0/24"}}])
    assert wrong["failed"]
    assert "203.0.113.0/24" in wrong["msg"]
    unknown = converged.module("alpha", "plumb_link", config=[{"workload": "default/nobody"}])
    assert "no workload 'default/nobody'" in unknown["msg"]


def test_a_part_does_not_count_as_the_commit(fleet: Fleet) -> None:
    fleet.module("alpha", "plumb_link")
    assert fleet.module("alpha", "plumb_reconcile", state="gathered")["gathered"]["status"]["commit"] == ""


def test_a_daemon_keeps_the_family_and_the_module_says_so(followed: Fleet) -> None:
    refused = followed.module("alpha", "plumb_link", state="deleted")
    assert refused["failed"]
    assert refused["kind"] == "Busy"
    assert len(devices(followed)) == 2
    assert not followed.module("alpha", "plumb_link")["changed"]


def test_another_commit_s_family_is_refused_while_a_daemon_follows_the_branch(followed: Fleet) -> None:
    followed.git("checkout", "-q", "-b", "other")
    followed.git("rm", "-q", "policies/web.yaml")
    followed.commit("no policy")
    refused = followed.module("alpha", "plumb_policy", commit="other")
    assert refused["kind"] == "Busy"
    assert "plumb_reconcile" in refused["msg"]


def test_a_branch_that_is_not_ours_is_never_moved(followed: Fleet) -> None:
    first = followed.git("rev-parse", "HEAD~1")
    refused = reconcile(followed, commit=first)
    assert refused["kind"] == "RepositoryError"
    assert "would go back to it" in refused["msg"]
    assert followed.git("rev-parse", "main") == head(followed)


def test_a_commit_that_was_rolled_back_is_left_alone_until_forced(converged: Fleet) -> None:
    plumb = [sys.executable, "-m", "reconciler.cli"]
    config = str(converged.home("alpha") / "config.yaml")
    converged.write("policies/more.yaml", POLICY.replace("name: web", "name: more").replace("80", "81"))
    converged.commit("more")
    assert reconcile(converged)["changed"]
    with netns.inside(str(NETNS / converged.host("alpha"))):
        subprocess.run([*plumb, "--config", config, "rollback"], check=True, capture_output=True)
    refused = reconcile(converged)
    assert refused["failed"]
    assert "was rolled back" in refused["msg"]
    assert reconcile(converged, force=True)["changed"]
    assert not reconcile(converged)["changed"]


def test_a_host_that_is_held_names_its_holder(converged: Fleet) -> None:
    run("ip", "-n", converged.host("alpha"), "link", "del", devices(converged)[0])
    with host_lock(converged.home("alpha") / "run" / "lock", "somebody at work"):
        held = converged.module("alpha", "plumb_link")
    assert held["kind"] == "Busy"
    assert "somebody at work" in held["msg"]


def test_a_wrong_manifest_fails_with_file_line_and_the_exit_code_of_the_command(fleet: Fleet) -> None:
    fleet.git("checkout", "-q", "-b", "bad")
    fleet.write("policies/web.yaml", POLICY.replace("port: 80", "port: 70000"))
    fleet.commit("bad")
    failed = fleet.module("alpha", "plumb_link", commit="bad")
    assert failed["failed"]
    assert failed["exit_code"] == 3
    assert failed["faults"][0].startswith("policies/web.yaml:9:")
