"""site.yml and the modules on hosts that are namespaces: over a real sshd, and over the namespace connection."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from reconciler.engine.lock import host_lock
from tests.e2e.fleet import BPF, NETNS, POLICY, PROBED, Fleet, built, copy_of_checkout, run, wait_for

pytestmark = pytest.mark.root

WAVES = 'rollout: {waves: [1, 1, "100%"]}\n  probes:'

NewFleet = Callable[..., Fleet]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared, and its release built here once: the namespaces have no way to an index of packages."""
    return built(copy_of_checkout(tmp_path_factory.mktemp("checkout")))


@contextmanager
def fleet_of(checkout: Path, *names: str, ssh: bool = False, bare: bool = False) -> Iterator[Fleet]:
    """Its hosts find the release of an earlier fleet there, unless they are `bare`.

    The folder's name is short: ssh puts a socket there, whose path has at most 108 bytes.
    """
    with tempfile.TemporaryDirectory(prefix="pt-") as folder:
        prefix = (Path(folder) if bare else checkout.parent) / "plumb"
        fleet = Fleet(Path(folder), checkout, prefix, names, ssh)
        try:
            fleet.up()
            yield fleet
        finally:
            fleet.down()
        assert not [name for name in fleet.namespaces() if (NETNS / name).exists()]
        assert not (BPF / fleet.tag).exists()


@pytest.fixture
def new_fleet(checkout: Path) -> Iterator[NewFleet]:
    with ExitStack() as stack:
        yield lambda *names, **options: stack.enter_context(fleet_of(checkout, *names, **options))


@pytest.fixture(scope="module")
def standing(checkout: Path) -> Iterator[Fleet]:
    """One host that has been converged once."""
    with fleet_of(checkout, "alpha") as fleet:
        assert (played := fleet.play()).code == 0, played.output
        fleet.git("tag", "first")
        yield fleet


@pytest.fixture
def fleet(standing: Fleet) -> Iterator[Fleet]:
    """The same, with its branch back where it was: a forced push, as far as the host can see."""
    yield standing
    standing.git("reset", "-q", "--hard", "first")


def policy_rows(fleet: Fleet, name: str) -> list[object]:
    """Without the commit that each is from."""
    rows = json.loads(fleet.plumb(name, "map", "show", "policy", "-o", "json"))
    return [(one["key"], one["row"]) for one in rows]


@pytest.mark.parametrize("ssh", [False, True], ids=["netns", "sshd"])
def test_a_first_run_installs_and_converges_and_a_second_changes_nothing(new_fleet: NewFleet, ssh: bool) -> None:
    fleet = new_fleet("alpha", ssh=ssh, bare=True)
    first = fleet.play()
    assert first.code == 0, first.output
    status = json.loads(fleet.plumb("alpha", "status", "-o", "json"))
    assert (status["commit"], status["state"]) == (fleet.git("rev-parse", "HEAD"), "converged")
    assert len(json.loads(fleet.plumb("alpha", "endpoint", "list", "-o", "json"))) == 2
    second = fleet.play()
    assert second.code == 0, second.output
    assert second.changed() == {"alpha": 0}


def test_a_check_shows_the_exact_plan_and_writes_nothing(fleet: Fleet) -> None:
    fleet.write("policies/web.yaml", POLICY)
    commit = fleet.commit("policy")
    before = fleet.snapshot()
    check = fleet.play("--check", "--diff")
    assert check.code == 0, check.output
    assert f"-> {commit[:12]}" in check.output
    assert "(NetworkPolicy default/web)" in check.output
    assert check.changed() == {"alpha": 1}
    assert fleet.snapshot() == before
    done = fleet.play("--diff")
    assert done.code == 0, done.output
    planned = [line for line in check.output.splitlines() if line.lstrip().startswith(("+ ", "~ ", "- ", "policy:"))]
    assert [line for line in planned if line not in done.output] == []


def test_a_check_on_a_host_without_anything_says_so_and_writes_nothing(new_fleet: NewFleet) -> None:
    fleet = new_fleet("alpha", bare=True)
    before = fleet.snapshot()
    check = fleet.play("--check", "--diff")
    assert check.code == 0, check.output
    assert "Nothing is installed on alpha yet" in check.output
    assert "+release: " in check.output
    assert fleet.snapshot() == before


def test_two_hosts_each_get_their_own_rows_over_ssh(new_fleet: NewFleet) -> None:
    fleet = new_fleet("alpha", "beta", ssh=True)
    fleet.write("policies/web.yaml", POLICY)
    fleet.commit("policy")
    assert (played := fleet.play()).code == 0, played.output
    for name in ("alpha", "beta"):
        endpoints = json.loads(fleet.plumb(name, "endpoint", "list", "-o", "json"))
        own = {f"default/{name}-web", f"default/{name}-client", f"reserved:health/{name}"}
        assert {one["workload"] for one in endpoints} == own
        assert policy_rows(fleet, name)
    assert fleet.play().changed() == {"alpha": 0, "beta": 0}


def test_a_bad_commit_touches_no_host(fleet: Fleet) -> None:
    before = fleet.snapshot()
    fleet.write("policies/web.yaml", POLICY.replace("port: 80", "port: 70000"))
    fleet.commit("bad")
    played = fleet.play()
    assert played.code != 0
    assert "policies/web.yaml:9:" in played.output
    assert "70000" in played.output
    assert fleet.snapshot() == before


def test_a_host_that_cannot_be_reached_stops_the_rollout(new_fleet: NewFleet) -> None:
    fleet = new_fleet("alpha", "beta", ssh=True)
    fleet.servers[0].terminate()
    fleet.servers[0].wait()
    played = fleet.play()
    assert played.code != 0
    assert played.recap["alpha"]["unreachable"] == 1, played.output
    assert "beta" not in played.recap
    assert not fleet.home("beta").exists()


def test_a_commit_that_fails_on_the_first_host_never_reaches_the_second(new_fleet: NewFleet) -> None:
    fleet = new_fleet("alpha", "beta")
    assert (played := fleet.play()).code == 0, played.output
    first = fleet.git("rev-parse", "HEAD")
    fleet.write("cluster.yaml", PROBED)
    fleet.commit("a probe that cannot hold")
    played = fleet.play()
    assert played.code != 0
    assert "the previous state was restored" in played.output
    for name in ("alpha", "beta"):
        assert json.loads(fleet.plumb(name, "status", "-o", "json"))["commit"] == first
        assert run("git", "-C", fleet.home(name) / "policy.git", "rev-parse", "main") == first


def test_a_wave_that_fails_leaves_the_later_ones_untouched(new_fleet: NewFleet) -> None:
    fleet = new_fleet("alpha", "beta", "gamma", "delta")
    fleet.write("cluster.yaml", PROBED.replace("alpha-client", "beta-client").replace("probes:", WAVES))
    fleet.commit("one host, another one, then the rest; a probe on the second cannot hold")
    played = fleet.play()
    assert played.code != 0
    assert "the previous state was restored" in played.output
    assert played.recap.keys() == {"alpha", "beta"}
    assert json.loads(fleet.plumb("alpha", "status", "-o", "json"))["state"] == "converged"
    for name in ("gamma", "delta"):
        assert not fleet.home(name).exists()


def test_a_host_whose_daemon_is_not_converged_ends_the_rollout(fleet: Fleet) -> None:
    assert (played := fleet.play()).code == 0, played.output
    fleet.git("commit", "-q", "--allow-empty", "-m", "another")
    other = fleet.git("rev-parse", "HEAD")
    said = fleet.module("alpha", "plumb_reconcile", state="converged", commit=other, wait_s=1)
    assert said["failed"]
    assert f"nothing is known of {other[:12]}" in said["msg"]


def test_a_host_with_a_remote_follows_it_between_runs(new_fleet: NewFleet) -> None:
    fleet = new_fleet("alpha")
    given = {"plumb_remote": str(fleet.repository)}
    node = fleet.repository / "nodes" / "alpha.yaml"
    node.write_text(node.read_text().replace("state_directory:", "poll_interval_s: 0.3\n      state_directory:"))
    fleet.commit("look often")
    assert (played := fleet.play("-e", json.dumps(given))).code == 0, played.output
    fleet.write("policies/web.yaml", POLICY)
    commit = fleet.commit("policy")
    wait_for(lambda: json.loads(fleet.plumb("alpha", "status", "-o", "json"))["commit"] == commit, "it is fetched")
    assert fleet.play("-e", json.dumps(given)).changed() == {"alpha": 0}


def test_a_host_that_somebody_else_holds_says_who_it_is(new_fleet: NewFleet) -> None:
    fleet = new_fleet("alpha")
    (fleet.home("alpha") / "run").mkdir(parents=True)
    with host_lock(fleet.home("alpha") / "run" / "lock", "an operator's command"):
        played = fleet.play("-e", "plumb_wait_s=1")
    assert played.code != 0
    assert "an operator's command" in played.output


def test_a_suspended_host_is_left_alone(fleet: Fleet) -> None:
    fleet.plumb("alpha", "suspend", "maintenance of the rack")
    fleet.write("policies/web.yaml", POLICY)
    fleet.commit("policy")
    played = fleet.play()
    fleet.plumb("alpha", "resume")
    assert played.code != 0
    assert "maintenance of the rack" in played.output


def test_a_changed_setting_restarts_the_daemon_and_nothing_else(fleet: Fleet) -> None:
    assert (played := fleet.play()).code == 0, played.output
    pid = (fleet.home("alpha") / "daemon.pid").read_text()
    rows = policy_rows(fleet, "alpha")
    node = fleet.repository / "nodes" / "alpha.yaml"
    node.write_text(node.read_text().replace("state_directory:", "audit_interval_s: 5\n      state_directory:"))
    fleet.commit("look more often")
    played = fleet.play("--diff")
    assert played.code == 0, played.output
    assert "+audit_interval_s: 5" in played.output
    assert (fleet.home("alpha") / "daemon.pid").read_text() != pid
    assert policy_rows(fleet, "alpha") == rows
    assert fleet.play().changed() == {"alpha": 0}


def test_a_release_that_is_not_whole_is_installed_again(fleet: Fleet) -> None:
    (fleet.prefix / "installed").unlink()
    played = fleet.play()
    assert played.code == 0, played.output
    assert (fleet.prefix / "installed").exists()
    assert fleet.play().changed() == {"alpha": 0}
