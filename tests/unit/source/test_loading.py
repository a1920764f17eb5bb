"""Commits and directories as snapshots, through a cache that reads nothing twice."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler import shipped
from reconciler.errors import ManifestError, RepositoryError
from reconciler.model.cluster import Workload
from reconciler.model.policy import CidrPeer
from reconciler.source import loading
from reconciler.source.documents import MAX_BYTES
from reconciler.source.loading import Cache, load, load_directory

from .policy_repository import CLUSTER, commit, git, make, network_policy


@pytest.fixture
def cache() -> Iterator[Cache]:
    made = Cache()
    yield made
    made.close()


def test_the_example_is_a_snapshot() -> None:
    found = load_directory(shipped.quickstart())
    assert found.commit == ""
    assert sorted(found.workloads) == ["default/client", "default/stranger", "default/web"]
    assert [rule.reference for rule in found.rules] == ["NetworkPolicy/default/web"]
    assert found.warnings == ()


def test_a_commit_and_its_directory_say_the_same(tmp_path: Path, cache: Cache) -> None:
    shutil.copytree(shipped.quickstart(), tmp_path / "r")
    name = make(tmp_path / "r", {})
    from_commit, from_directory = load(tmp_path / "r", "main", cache), load_directory(tmp_path / "r")
    assert from_commit.commit == name
    assert str(from_commit).replace(name, "") == str(from_directory)


def test_every_origin_carries_path_and_commit(tmp_path: Path, cache: Cache) -> None:
    probes = "spec: {probes: [{name: p, from: default/web, to: 192.0.2.1, port: 80}]}\n"
    node = (
        "apiVersion: plumbline/v1\nkind: Node\nmetadata: {name: alpha}\nspec:\n  cidrs: [10.0.0.0/24]\n"
        "  routes: [{destination: 10.1.0.0/16, interface: eth0}]\n  rules: [{priority: 1, table: 1, family: 4}]\n"
    )
    workload = "apiVersion: plumbline/v1\nkind: Workload\nmetadata: {name: web}\nspec: {node: alpha, netns: web}\n"
    name = make(tmp_path, {"a.yaml": CLUSTER + probes, "b.yaml": f"{node}---\n{workload}---\n{network_policy('web')}"})
    found = load(tmp_path, "HEAD", cache)
    [host], [web] = found.nodes.values(), found.workloads.values()
    first = [found.cluster.origin, found.cluster.probes[0].origin]
    second = [host.origin, host.routes[0].origin, host.rules[0].origin, web.origin, found.rules[0].origin]
    assert {(origin.path, origin.commit) for origin in first} == {("a.yaml", name)}
    assert {(origin.path, origin.commit) for origin in second} == {("b.yaml", name)}


def test_only_changed_files_are_read_again(tmp_path: Path, cache: Cache) -> None:
    make(tmp_path, {"cluster.yaml": CLUSTER, "a.yaml": network_policy("a"), "sub/b.yaml": network_policy("b")})
    load(tmp_path, "HEAD", cache)
    commit(tmp_path, {"sub/b.yaml": network_policy("changed")})
    assert [rule.name for rule in load(tmp_path, "HEAD", cache).rules] == ["a", "changed"]
    assert cache.files_read == 3 + 1


def test_a_file_that_moved_is_not_read_again(tmp_path: Path, cache: Cache) -> None:
    make(tmp_path, {"cluster.yaml": CLUSTER, "a.yaml": network_policy("a")})
    load(tmp_path, "HEAD", cache)
    commit(tmp_path, {"a.yaml": None, "moved/a.yaml": network_policy("a")})
    assert load(tmp_path, "HEAD", cache).rules[0].origin.path == "moved/a.yaml"
    assert cache.files_read == 2


def test_a_document_is_in_memory_as_the_snapshot_has_it(tmp_path: Path, cache: Cache) -> None:
    node = "apiVersion: plumbline/v1\nkind: Node\nmetadata: {name: alpha}\nspec: {cidrs: [10.0.0.0/24]}\n"
    workload = "apiVersion: plumbline/v1\nkind: Workload\nmetadata: {name: lonely}\nspec: {node: alpha, netns: web}\n"
    make(tmp_path, {"a.yaml": f"{CLUSTER}---\n{node}---\n{workload}"})
    found = load(tmp_path, "HEAD", cache)
    gc.collect()
    held = [one for one in gc.get_objects() if isinstance(one, Workload) and one.name == "lonely"]
    assert [id(one) for one in held] == [id(found.workloads["default/lonely"])]


def test_a_commit_loaded_twice_is_the_same_snapshot(tmp_path: Path, cache: Cache) -> None:
    make(tmp_path, {"cluster.yaml": CLUSTER})
    assert load(tmp_path, "HEAD", cache) is load(tmp_path, "main", cache)


def test_a_setting_of_the_cluster_reaches_policies_that_did_not_change(tmp_path: Path, cache: Cache) -> None:
    block = network_policy("a", "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}")
    make(tmp_path, {"cluster.yaml": CLUSTER, "a.yaml": block})
    before = load(tmp_path, "HEAD", cache).rules[0].ingress[0].peers
    commit(tmp_path, {"cluster.yaml": CLUSTER + "spec: {policy: {ipBlockMatchesWorkloads: false}}\n"})
    after = load(tmp_path, "HEAD", cache).rules[0].ingress[0].peers
    matches = [
        peer.matches_workloads for peers in (before, after) for peer in peers or () if isinstance(peer, CidrPeer)
    ]
    assert matches == [True, False]


def test_namespaces_without_a_document_are_implied_with_a_warning(tmp_path: Path, cache: Cache) -> None:
    policy = network_policy("a").replace("default", "shop")
    make(tmp_path, {"cluster.yaml": CLUSTER, "a.yaml": policy, "b.yaml": network_policy("b")})
    found = load(tmp_path, "HEAD", cache)
    assert found.namespaces["shop"].labels == {"kubernetes.io/metadata.name": "shop"}
    assert found.namespaces["shop"].origin.path == "a.yaml"
    assert [str(warning) for warning in found.warnings] == [
        'a.yaml:1:1: warning: there is no Namespace document for "shop": it has no labels but its name'
    ]


def test_names_with_a_dot_are_read_on_request_only(tmp_path: Path, cache: Cache) -> None:
    make(tmp_path, {"cluster.yaml": CLUSTER, ".more/a.yaml": network_policy("a")})
    assert load(tmp_path, "HEAD", cache).rules == ()
    assert len(load(tmp_path, "HEAD", cache, hidden=True).rules) == 1
    assert len(load_directory(tmp_path, hidden=True).rules) == 1


def test_a_bare_repository_needs_no_work_tree(tmp_path: Path, cache: Cache) -> None:
    name = make(tmp_path / "r", {"cluster.yaml": CLUSTER})
    git(tmp_path, "clone", "--quiet", "--bare", "r", "r.git")
    assert load(tmp_path / "r.git", "main", cache).commit == name


def test_packed_objects_are_read(tmp_path: Path, cache: Cache) -> None:
    make(tmp_path, {"cluster.yaml": CLUSTER, "a.yaml": network_policy("a")})
    git(tmp_path, "gc", "--quiet")
    assert len(load(tmp_path, "HEAD", cache).rules) == 1


def test_objects_that_arrive_later_are_seen(tmp_path: Path, cache: Cache) -> None:
    make(tmp_path, {"cluster.yaml": CLUSTER})
    load(tmp_path, "HEAD", cache)
    commit(tmp_path, {"a.yaml": network_policy("a")})
    git(tmp_path, "repack", "-adq")
    assert len(load(tmp_path, "HEAD", cache).rules) == 1


def test_a_repository_that_was_replaced_is_opened_anew(tmp_path: Path, cache: Cache) -> None:
    make(tmp_path / "r", {"cluster.yaml": CLUSTER})
    load(tmp_path / "r", "HEAD", cache)
    shutil.rmtree(tmp_path / "r")
    name = make(tmp_path / "r", {"cluster.yaml": CLUSTER, "a.yaml": network_policy("other")})
    assert load(tmp_path / "r", "HEAD", cache).commit == name


def test_objects_in_quarantine_are_read_through_the_hooks_environment(tmp_path: Path, cache: Cache) -> None:
    make(tmp_path, {"cluster.yaml": CLUSTER})
    quarantine = tmp_path / ".git" / "objects" / "incoming"
    quarantine.mkdir()
    environment = {
        "GIT_OBJECT_DIRECTORY": "./objects/incoming",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(tmp_path / ".git" / "objects"),
    }
    absolute = environment | {"GIT_OBJECT_DIRECTORY": str(quarantine)}
    (tmp_path / "a.yaml").write_text(network_policy("a"))
    for arguments in (["add", "a.yaml"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, env=os.environ | absolute)
    pushed = git(tmp_path, "rev-parse", "HEAD")
    with pytest.raises(RepositoryError):
        load(tmp_path, pushed, cache)
    assert len(load(tmp_path, pushed, cache, environment).rules) == 1


def test_the_environment_of_a_push_passes_on_nothing_but_the_quarantine(tmp_path: Path, cache: Cache) -> None:
    make(tmp_path, {"cluster.yaml": CLUSTER})
    objects = str(tmp_path / ".git" / "objects")
    poisoned = {"GIT_OBJECT_DIRECTORY": objects, "GIT_EXEC_PATH": "/nowhere", "GIT_DIR": "/nowhere", "PATH": "/nowhere"}
    assert load(tmp_path, "HEAD", cache, poisoned).rules == ()


def test_a_link_is_refused_and_a_submodule_warned_of(tmp_path: Path, cache: Cache) -> None:
    make(tmp_path / "r", {"cluster.yaml": CLUSTER})
    make(tmp_path / "sub", {"x.yaml": "{"})
    git(tmp_path / "r", "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(tmp_path / "sub"), "sub")
    commit(tmp_path / "r", {})
    for snapshot in (load(tmp_path / "r", "HEAD", cache), load_directory(tmp_path / "r")):
        assert [str(one) for one in snapshot.warnings] == ["sub:0:0: warning: a submodule: nothing in it is read"]
    (tmp_path / "r" / "link.yaml").symlink_to("cluster.yaml")
    commit(tmp_path / "r", {})
    for attempt in (lambda: load(tmp_path / "r", "HEAD", cache), lambda: load_directory(tmp_path / "r")):
        with pytest.raises(ManifestError) as raised:
            attempt()
        assert "link.yaml: a symbolic link: a manifest must be a file of its own" in str(raised.value)


def test_a_file_over_the_limit_is_refused_without_being_read(tmp_path: Path, cache: Cache) -> None:
    make(tmp_path, {"cluster.yaml": CLUSTER, "big.yaml": "#" * (MAX_BYTES + 1), "then.yaml": network_policy("a")})
    for attempt in (lambda: load(tmp_path, "HEAD", cache), lambda: load_directory(tmp_path)):
        with pytest.raises(ManifestError) as raised:
            attempt()
        assert str(raised.value) == f"big.yaml: the file has {MAX_BYTES + 1} bytes, the limit is {MAX_BYTES}: split it"


def test_a_refused_commit_leaves_the_next_one_alone(tmp_path: Path, cache: Cache) -> None:
    make(tmp_path, {"cluster.yaml": CLUSTER, "a.yaml": "kind: Nope\napiVersion: v1\n"})
    with pytest.raises(ManifestError):
        load(tmp_path, "HEAD", cache)
    commit(tmp_path, {"a.yaml": network_policy("a")})
    assert len(load(tmp_path, "HEAD", cache).rules) == 1


def test_faults_come_in_the_order_of_files_and_lines(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("kind: Nope\napiVersion: v1\n---\nx: 1\n")
    (tmp_path / "a.yaml").write_text("- x\n")
    with pytest.raises(ManifestError) as raised:
        load_directory(tmp_path)
    assert [(fault.path, fault.line) for fault in raised.value.faults] == [("a.yaml", 1), ("b.yaml", 1), ("b.yaml", 4)]


def test_what_a_cache_holds_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Cache) -> None:
    monkeypatch.setattr(loading, "_SPARE", 2)
    make(tmp_path, {"cluster.yaml": CLUSTER})
    for count in range(6):
        commit(tmp_path, {"a.yaml": network_policy(f"a{count}")})
        load(tmp_path, "HEAD", cache)
    assert len(cache._manifests) == 2 + 2


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="No such file or directory"):
        load_directory(tmp_path / "nowhere")


def test_a_workload_without_fixed_addresses_beside_other_nodes_is_warned_of(tmp_path: Path, cache: Cache) -> None:
    head = "apiVersion: plumbline/v1\nkind: "
    files = {"cluster.yaml": CLUSTER}
    for place, node in enumerate(("alpha", "beta"), 1):
        cidrs = f"[10.44.{place}.0/24, 'fd44:{place}::/112']"
        files[f"{node}.yaml"] = f"{head}Node\nmetadata: {{name: {node}}}\nspec: {{cidrs: {cidrs}}}\n"
    fixed = "addresses: [10.44.2.9, 'fd44:2::9']"
    for name, spec in (
        ("one", "node: alpha"),
        ("two", f"node: beta, {fixed}"),
        ("three", "node: beta, addresses: [10.44.2.7]"),
        ("x1", "node: alpha"),
        ("x2", "node: alpha"),
    ):
        files[f"{name}.yaml"] = f"{head}Workload\nmetadata: {{name: {name}}}\nspec: {{{spec}, netns: {name}}}\n"
    repository = make(tmp_path / "r", files)
    said = "is chosen by {} and not known to other nodes, whose rules take it for unmanaged: give {} `addresses`"
    assert [str(one) for one in load(tmp_path / "r", repository, cache).warnings] == [
        f"one.yaml:1:1: warning: the IPv4 and IPv6 address of Workload default/one "
        f"and of 2 more {said.format('alpha', 'them')}",
        f"three.yaml:1:1: warning: the IPv6 address of Workload default/three {said.format('beta', 'it')}",
    ]


def test_workloads_of_other_nodes_are_known_where_hosts_share_an_etcd(tmp_path: Path, cache: Cache) -> None:
    head = "apiVersion: plumbline/v1\nkind: "
    store = "{kind: etcd, endpoints: ['192.0.2.1:2379']}"
    files = {"cluster.yaml": f"{head}Cluster\nmetadata: {{name: demo}}\nspec: {{store: {store}}}\n"}
    for place, node in enumerate(("alpha", "beta"), 1):
        files[f"{node}.yaml"] = f"{head}Node\nmetadata: {{name: {node}}}\nspec: {{cidrs: [10.44.{place}.0/24]}}\n"
        files[f"w-{node}.yaml"] = f"{head}Workload\nmetadata: {{name: {node}}}\nspec: {{node: {node}, netns: {node}}}\n"
    assert load(tmp_path / "r", make(tmp_path / "r", files), cache).warnings == ()


def test_a_node_may_take_its_cidrs_from_the_cluster_s_pools(tmp_path: Path, cache: Cache) -> None:
    head = "apiVersion: plumbline/v1\nkind: "
    pools = "spec: {pools: [{cidr: 10.44.0.0/16, nodePrefix: 24}]}\n"
    files = {
        "cluster.yaml": f"{head}Cluster\nmetadata: {{name: demo}}\n{pools}",
        "node.yaml": f"{head}Node\nmetadata: {{name: alpha}}\nspec: {{}}\n",
        "w.yaml": f"{head}Workload\nmetadata: {{name: web}}\n"
        "spec: {node: alpha, netns: web, addresses: [10.44.3.9]}\n",
    }
    assert load(tmp_path, make(tmp_path, files), cache).workloads
    outside = {"w.yaml": files["w.yaml"].replace("10.44.3.9", "10.45.3.9")}
    with pytest.raises(ManifestError, match=r"10\.45\.3\.9 is not inside 10.44.0.0/16"):
        load(tmp_path, commit(tmp_path, outside), cache)
