"""GitOps across hosts: daemons that fetch a pushed commit, wake each other up, and tell the push what became of it.

`alpha` is next to the repository. `beta` hears of pushes from the store alone, `gamma` also looks for itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from reconciler.lab.underlay import run_ip
from tests.e2e.daemon_host import allowing, document, policy, until
from tests.e2e.followers import Followers, followers

pytestmark = pytest.mark.root

SELDOM_S, OFTEN_S = 3600, 0.3
ALPHA, ALPHAS = "198.51.100.1", "10.47.0.0/24"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followers]:
    polls = {"alpha": {}, "beta": {"poll_interval_s": SELDOM_S}, "gamma": {"poll_interval_s": OFTEN_S}}
    with followers(tmp_path_factory.mktemp("followers"), **polls) as cluster:
        yield cluster


@pytest.fixture
def cluster(made: Followers) -> Iterator[Followers]:
    """Ends with all hosts at the branch's commit."""
    yield made
    made.git("fetch", "-q", "origin")
    made.git("reset", "-q", "--hard", "origin/main")
    assert made.push("--force").returncode == 0
    for host in made.hosts.values():
        host.client.get("/v1/wait", commit=made.head())
        host.wait_for(made.head())


def test_a_push_reaches_all_hosts_and_its_output_names_each(cluster: Followers) -> None:
    cluster.write("policies.yaml", policy("beta", "beta", ingress=[allowing("from", "alpha", 80)]))
    commit = cluster.commit()
    pushed = cluster.push()
    assert pushed.returncode == 0, pushed.stderr
    told = pushed.stderr.splitlines()
    for node, rows in (("alpha", "no row changed"), ("beta", "policy +"), ("gamma", "no row changed")):
        (line,) = [line for line in told if line.startswith(f"remote: {node}: applied {commit[:12]} in ")]
        assert rows in line
    assert {host.status()["commit"] for host in cluster.hosts.values()} == {commit}


def test_a_push_shows_what_it_would_change_on_each_host(cluster: Followers) -> None:
    before = cluster.head()
    cluster.write("planned.yaml", policy("gamma", "gamma", egress=[allowing("to", "alpha", 80)]))
    cluster.commit()
    told = [line.strip() for line in cluster.push().stderr.splitlines()]
    assert f"remote: beta: plan from {before[:12]}: no change" in told
    (gamma,) = [line for line in told if line.startswith(f"remote: gamma: plan from {before[:12]}: ")]
    (applied,) = [line for line in told if line.startswith("remote: gamma: applied")]
    assert gamma.partition("policy ")[2] in applied, (gamma, applied)


def test_a_commit_that_does_not_fit_another_host_is_refused(cluster: Followers) -> None:
    crowd = (document("Workload", f"w{n}", {"node": "gamma", "netns": f"/run/netns/pt-none-{n}"}) for n in range(3))
    small = document("Node", "gamma", {"cidrs": ["10.49.0.0/30"], "addresses": ["198.51.100.3"]})
    cluster.write("gamma.yaml", small + "".join(crowd))
    cluster.commit()
    pushed = cluster.push()
    assert pushed.returncode != 0
    assert "gamma: 10.49.0.0/30 of gamma is used up" in pushed.stderr


def test_a_push_turns_direct_routes_on_everywhere(cluster: Followers) -> None:
    manifest = (cluster.tree / "cluster.yaml").read_text()
    first, *others = yaml.safe_load_all(manifest)
    first["spec"]["network"] = {"directRoutes": True}
    cluster.write("cluster.yaml", yaml.safe_dump_all([first, *others]))
    cluster.commit()
    pushed = cluster.push()
    assert pushed.returncode == 0, pushed.stderr
    for node in ("beta", "gamma"):
        routes = cluster.tried("ip", "-n", Path(cluster.hosts[node].path).name, "route", "show", ALPHAS).stdout
        assert f"{ALPHAS} via {ALPHA} dev wire" in routes, pushed.stderr
    cluster.write("cluster.yaml", manifest)
    cluster.commit()
    assert cluster.push().returncode == 0


def test_a_branch_that_moves_without_a_push_is_found_by_looking(cluster: Followers) -> None:
    commit = cluster.commit()
    cluster.git("fetch", "-q", str(cluster.tree), "+main:main", at=cluster.bare)
    cluster.hosts["gamma"].wait_for(commit)
    cluster.hosts["alpha"].wait_for(commit)
    behind = {"alpha": False, "beta": True, "gamma": False}
    until(lambda: {n: one["behind"] for n, one in cluster.reports().items()} == behind, "both have reported")
    shown = cluster.first.plumb("status", "--cluster")
    assert shown.returncode == 0, shown.stderr
    lines = {line.split()[0]: line for line in shown.stdout.splitlines()}
    assert lines["beta"].endswith("behind")
    assert "converged" in lines["alpha"]
    assert "behind" not in lines["alpha"]
    assert shown.stdout.splitlines()[-1].startswith(f"2 of 3 nodes run {commit[:12]}")


def test_the_cluster_is_the_same_from_every_host_and_as_json(cluster: Followers) -> None:
    until(lambda: {one["commit"] for one in cluster.reports().values()} == {cluster.head()}, "all have reported")
    for host in cluster.hosts.values():
        answer = json.loads(host.plumb("status", "--cluster", "-o", "json").stdout)
        assert {node["node"] for node in answer["nodes"]} == set(cluster.hosts)
        assert answer["newest"] == cluster.head()


def test_a_forced_push_is_followed_everywhere(cluster: Followers) -> None:
    cluster.git("commit", "-q", "--amend", "--allow-empty", "-m", "another history")
    assert cluster.push("--force").returncode == 0
    for host in cluster.hosts.values():
        host.wait_for(cluster.head())


def test_a_remote_that_is_away_is_named_until_it_is_back(cluster: Followers) -> None:
    gamma, away = cluster.hosts["gamma"], cluster.bare.with_name("away.git")
    cluster.bare.rename(away)
    try:
        until(lambda: gamma.status()["remote"]["error"], "the status says that nothing can be fetched")
        said = gamma.plumb("status").stdout
        assert "not fetched" in said
        assert "does not appear to be a git repository" in said
        assert gamma.status()["state"] == "converged"
    finally:
        away.rename(cluster.bare)
    until(lambda: not gamma.status()["remote"]["error"], "it is fetched again")


def test_a_host_that_cannot_be_reached_is_named_by_the_others(cluster: Followers) -> None:
    until(lambda: cluster.first.status()["health"]["reachable"] == 4, "all hosts reach each other")
    run_ip(cluster.net, ["link set port2 down"])
    try:
        until(lambda: len(cluster.hosts["gamma"].status()["health"]["unreachable"]) == 4, "gamma is alone")
        until(lambda: len(cluster.first.status()["health"]["unreachable"]) == 2, "alpha does not reach gamma")
        assert "gamma by the node path, 198.51.100.3, since " in cluster.first.plumb("status").stdout
        until(lambda: len(cluster.reports()["gamma"]["unreachable"]) == 4, "gamma tells of it")
        shown = cluster.hosts["gamma"].plumb("status", "--cluster").stdout
        (gamma,) = [line for line in shown.splitlines() if line.startswith("gamma")]
        assert "does not reach alpha (node path, since " in gamma
    finally:
        run_ip(cluster.net, ["link set port2 up"])
    until(lambda: cluster.first.status()["health"]["reachable"] == 4, "all hosts reach each other again")


def test_a_tunnel_that_is_cut_is_told_apart_from_the_network_beneath(cluster: Followers) -> None:
    until(lambda: cluster.first.status()["health"]["reachable"] == 4, "all hosts reach each other")
    firewall = "add table inet pt; add chain inet pt in { type filter hook input priority 0; }; "
    nft(cluster, f"{firewall} add rule inet pt in udp dport 8472 drop")
    try:
        until(lambda: cluster.first.status()["health"]["unreachable"], "alpha does not reach gamma")
        paths = [(one["node"], one["path"]) for one in cluster.first.status()["health"]["unreachable"]]
        assert paths == [("gamma", "workload")]
    finally:
        nft(cluster, "delete table inet pt")
    until(lambda: cluster.first.status()["health"]["reachable"] == 4, "all hosts reach each other again")


def test_notes_say_which_host_runs_what_since_when(cluster: Followers) -> None:
    before = cluster.commit()
    assert cluster.push().returncode == 0
    until(lambda: noted(cluster, before, "runs it since") == set(cluster.hosts), "each host runs the commit")
    commit = cluster.commit()
    assert cluster.push().returncode == 0
    until(lambda: noted(cluster, commit, "runs it since") == set(cluster.hosts), "each host runs the new commit")
    until(lambda: noted(cluster, before, "ran it from") == set(cluster.hosts), "each ran the one before")
    assert noted(cluster, before, "runs it since") == set()


def test_notes_are_not_written_again_for_the_same_words(cluster: Followers) -> None:
    commit, beta = cluster.commit(), cluster.hosts["beta"]
    assert cluster.push().returncode == 0
    until(lambda: noted(cluster, commit, "runs it since") == set(cluster.hosts), "each host is noted")
    tip, seen = cluster.git("rev-parse", "refs/notes/plumb", at=cluster.bare), cluster.reports()["beta"]["seen"]
    beta.stop()
    beta.start()
    until(lambda: cluster.reports()["beta"]["seen"] > seen, "beta reports again")
    until(lambda: cluster.reports()["beta"]["state"] == "converged", "beta is converged again")
    assert cluster.git("rev-parse", "refs/notes/plumb", at=cluster.bare) == tip


def test_notes_of_people_come_with_a_push_and_stay(cluster: Followers) -> None:
    commit = cluster.commit()
    assert cluster.push().returncode == 0
    until(lambda: noted(cluster, commit, "runs it since") == set(cluster.hosts), "each host is noted")
    cluster.git("fetch", "-q", "origin", "+refs/notes/*:refs/notes/*")
    cluster.git("notes", "--ref=plumb", "append", "-m", "seen by me", commit)
    pushed = cluster.tried("git", "-C", str(cluster.tree), "push", "-q", "origin", "refs/notes/plumb")
    assert pushed.returncode == 0, pushed.stderr
    after = cluster.commit()
    assert cluster.push().returncode == 0
    until(lambda: noted(cluster, after, "runs it since") == set(cluster.hosts), "notes go on")
    until(lambda: noted(cluster, commit, "ran it from") == set(cluster.hosts), "and are changed")
    assert "seen by me" in cluster.git("notes", "--ref=plumb", "show", commit, at=cluster.bare)


def noted(cluster: Followers, commit: str, what: str) -> set[str]:
    """Nodes of which the commit's note says this."""
    shown = cluster.git("log", "-1", "--notes=plumb", "--format=%N", commit, at=cluster.bare)
    return {line.partition(":")[0] for line in shown.splitlines() if f": {what} " in line}


def nft(cluster: Followers, commands: str) -> None:
    """On gamma."""
    done = cluster.tried("nsenter", f"--net={cluster.hosts['gamma'].path}", "nft", commands)
    assert done.returncode == 0, done.stderr
