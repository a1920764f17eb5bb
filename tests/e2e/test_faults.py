"""Bad commits: each is refused with one clear error and its exit code, and the running state stays as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.daemon_host import NODE, DaemonHost, allowing, document, made_host, node, policy, until
from tests.e2e.packet_flow import lossless

pytestmark = pytest.mark.root

PORT = 4000
REFUSED, FAILED = "refused", "failed"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonHost]:
    with made_host(tmp_path_factory.mktemp("h"), "web", "client", audit_interval_s=600) as made:
        made.write("policies/web.yaml", policy("web", "web", ingress=[allowing("from", "client", PORT)]))
        made.wait_for(made.commit())
        yield made


@pytest.fixture
def host(shared: DaemonHost) -> Iterator[DaemonHost]:
    """Its rows and its commit are the same before and after, and packets pass all the while."""
    before = shared.rows(), shared.at
    with lossless(shared, "client", "web", PORT):
        yield shared
        assert (shared.rows(), shared.at) == before
        shared.move(before[1])
        shared.settle()


def test_a_commit_without_a_cluster(host: DaemonHost) -> None:
    (host.tree / "cluster.yaml").unlink()
    assert _refused(host, 3) == ".: there is no Cluster document: exactly one is needed (kind: Cluster)"


def test_a_commit_without_this_node(host: DaemonHost) -> None:
    text = (host.tree / "base.yaml").read_text().replace(node(), node("beta"))
    host.write("base.yaml", text)
    for name in host.workloads:
        host.write(f"workloads/{name}.yaml", host.workload(name, node="beta"))
    assert _refused(host, 5) == f"the commit has no Node '{NODE}'; it has beta"


def test_a_commit_with_a_fault_in_a_manifest(host: DaemonHost) -> None:
    host.write("policies/web.yaml", policy("web", "web", ingress=[allowing("from", "client", 70000)]))
    assert _refused(host, 3).endswith(": port 70000 is above 65535")


def test_a_commit_with_more_workloads_than_addresses(host: DaemonHost) -> None:
    narrow = node(cidrs=["10.46.0.0/30", "fd46::/112"])
    host.write("base.yaml", (host.tree / "base.yaml").read_text().replace(node(), narrow))
    for number in range(3):
        host.write(f"workloads/more{number}.yaml", host.workload(f"more{number}", netns=f"{host.path}-more{number}"))
    assert _refused(host, 5).startswith(f"10.46.0.0/30 of {NODE} is used up")


def test_a_commit_over_a_maps_budget_names_who_fills_it(host: DaemonHost) -> None:
    peers = [{"ipBlock": {"cidr": f"100.{number >> 8}.{number & 255}.0/24"}} for number in range(700)]
    ports = [{"port": 2 * number + 1, "protocol": "TCP"} for number in range(100)]
    host.write("policies/greedy.yaml", policy("greedy", "web", ingress=[{"from": peers, "ports": ports}]))
    error = _refused(host, 5)
    assert "needs 70" in error
    assert "over the limit of 65536" in error
    assert "rows: NetworkPolicy/default/greedy at policies/greedy.yaml:" in error


def test_a_commit_that_needs_a_device_that_is_missing(host: DaemonHost) -> None:
    route = {"destination": "198.51.100.0/24", "interface": "nowhere0"}
    host.write("base.yaml", (host.tree / "base.yaml").read_text().replace(node(), node(routes=[route])))
    error = _refused(host, 7, FAILED)
    assert "nowhere0" in error
    assert "the previous state was restored" in error


def test_a_commit_whose_probe_does_not_hold(host: DaemonHost) -> None:
    probe = {"name": "cannot hold", "from": "default/client", "to": "192.0.2.1", "port": 9, "timeout": 0.2}
    host.write("cluster.yaml", document("Cluster", "demo", {"probes": [probe]}))
    error = _refused(host, 8, FAILED)
    assert error.startswith("probe cannot hold: 192.0.2.1 port 9 does not open")
    assert "the previous state was restored" in error


def test_a_commit_with_a_broken_object(host: DaemonHost) -> None:
    host.write("policies/broken.yaml", policy("broken", "web", ingress=[]))
    commit = _aside(host)
    blob = host.git("rev-parse", f"{commit}:policies/broken.yaml")
    path = host.tree / ".git" / "objects" / blob[:2] / blob[2:]
    path.chmod(0o644)
    path.write_bytes(b"\x78\x9c rubbish")
    error = _refusal_of(host, commit, 4)
    assert error.startswith(f"policies/broken.yaml (object {blob}) is broken")


def test_a_commit_of_which_an_object_is_missing(host: DaemonHost) -> None:
    host.write("policies/lost.yaml", policy("lost", "web", ingress=[]))
    commit = _aside(host)
    tree = host.git("rev-parse", f"{commit}:policies")
    (host.tree / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    assert _refusal_of(host, commit, 4).startswith(f"the tree of policies/ is not in {host.tree}")


def test_a_refused_commit_is_not_tried_again_and_does_not_block_a_newer_one(host: DaemonHost) -> None:
    good = host.at
    (host.tree / "cluster.yaml").unlink()
    _refused(host, 3)
    tries = host.log().count("not applied")
    with_drift = host.status()["drift_repairs"]
    host.ip("route", "del", host.addresses("web")[0])
    until(lambda: host.status()["drift_repairs"] > with_drift, "drift is repaired all the same")
    assert host.log().count("not applied") == tries
    host.move(good)
    host.settle()


def _refused(host: DaemonHost, exit_code: int, result: str = REFUSED) -> str:
    """What is said of what lies in the work tree."""
    return _refusal_of(host, _aside(host), exit_code, result)


def _aside(host: DaemonHost) -> str:
    """What lies in the work tree, as a commit that no branch has yet; the work tree is as it was before."""
    host.git("add", "-A")
    commit = host.git("commit-tree", "-m", "bad", "-p", "HEAD", host.git("write-tree"))
    host.git("reset", "-q", "--hard")
    return commit


def _refusal_of(host: DaemonHost, commit: str, exit_code: int, result: str = REFUSED) -> str:
    """The daemon's error when the branch moves to a commit. Asked for by name it is the same, with its exit code."""
    host.git("update-ref", "refs/heads/main", commit)
    outcome = host.outcome(commit)
    assert outcome["result"] == result
    state = REFUSED if result == REFUSED else "degraded"
    until(lambda: host.status()["state"] == state, f"the host is {state}")
    assert host.status()["last_error"] == outcome["error"]
    asked = host.plumb("apply", commit)
    assert asked.returncode == exit_code, asked.stderr
    assert asked.stderr.removeprefix("error: ").startswith(outcome["error"].splitlines()[0])
    return str(outcome["error"])
