"""Network namespaces by path, in the real kernel."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.errors import KernelError
from reconciler.kernel import netns
from reconciler.kernel.links import LinksTable
from reconciler.kernel.netns import NamespaceMissing
from reconciler.kernel.routes import RoutesTable
from reconciler.model.network import Link, VethPeer

from .hands import NETNS, PREFIX, eventually, ip, ip_in


def test_a_created_namespace_has_only_a_loopback(workload: str) -> None:
    assert [line.split(":")[1] for line in ip_in(workload, "-oneline link").splitlines()] == [" lo"]


def test_iproute2_knows_a_created_namespace(workload: str) -> None:
    assert os.path.basename(workload) in ip("netns")


def test_ours_can_be_removed_after_the_first_one_that_iproute2_makes() -> None:
    """In a mount namespace of its own, where nobody has made one yet."""
    path, theirs = f"/run/netns/{PREFIX}-ours", f"{PREFIX}-theirs"
    python = f"{sys.executable} -c 'from reconciler.kernel import netns; netns.{{}}(\"{path}\")'"
    steps = (
        "mount -t tmpfs none /run && mkdir /run/netns",
        python.format("create"),
        f"ip netns add {theirs}",
        python.format("remove"),
        f"test ! -e {path}",
    )
    subprocess.run(["unshare", "--mount", "sh", "-c", " && ".join(steps)], check=True)


def test_creating_over_an_existing_path_is_refused(workload: str) -> None:
    with pytest.raises(KernelError, match="is already there"):
        netns.create(workload)


def test_creating_leaves_the_thread_where_it_was(host: str, namespace: Callable[[str], str]) -> None:
    before = netns.identity("")
    namespace("other")
    assert netns.identity("") == before


def test_removing_what_is_gone_is_success(workload: str) -> None:
    netns.remove(workload)
    netns.remove(workload)
    assert not os.path.exists(workload)


def test_a_file_with_content_is_not_removed(tmp_path: Path) -> None:
    file = tmp_path / "web.yaml"
    file.write_text("kind: Workload")
    with pytest.raises(KernelError, match="not the mount point"):
        netns.remove(str(file))
    assert file.exists()


def test_a_failure_inside_brings_the_thread_back(host: str, workload: str) -> None:
    before = netns.identity("")
    with pytest.raises(ZeroDivisionError), netns.inside(workload):
        raise ZeroDivisionError
    assert netns.identity("") == before


def test_only_the_calling_thread_moves(host: str, workload: str) -> None:
    seen: list[object] = []
    here = netns.identity("")
    entered, looked = threading.Event(), threading.Event()

    def look() -> None:
        entered.wait()
        seen.append(netns.identity(""))
        looked.set()

    thread = threading.Thread(target=look)  # a new thread starts in the namespace of the one that starts it
    thread.start()
    with netns.inside(workload):
        entered.set()
        looked.wait()
    thread.join()
    assert seen == [here]


def test_many_threads_enter_different_namespaces_at_once(host: str, namespace: Callable[[str], str]) -> None:
    paths = [namespace(f"n{number}") for number in range(4)]
    wrong: list[str] = []

    def enter(path: str) -> None:
        for _ in range(200):
            with netns.inside(path):
                if netns.identity("") != netns.identity(path):
                    wrong.append(path)

    threads = [threading.Thread(target=enter, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_entering_a_missing_namespace_says_so(host: str) -> None:
    path = str(NETNS / f"{PREFIX}missing")
    with pytest.raises(NamespaceMissing, match=f"no network namespace at {path}"), netns.inside(path):
        pass


def test_a_file_without_a_namespace_is_a_missing_namespace(host: str, tmp_path: Path) -> None:
    file = tmp_path / "left-over"
    file.touch()
    with pytest.raises(NamespaceMissing), netns.inside(str(file)):
        pass


def test_a_namespace_made_again_under_the_same_path_is_the_new_one(workload: str) -> None:
    routes = RoutesTable(lambda: [workload])
    ip_in(workload, "link set lo up")
    ip_in(workload, "route add 10.9.0.0/24 dev lo proto 112")
    assert len(routes.live()) == 1
    netns.remove(workload)
    netns.create(workload)
    assert len(routes.live()) == 0


def test_nothing_of_ours_keeps_a_removed_namespace_alive(workload: str) -> None:
    links = LinksTable(lambda: [workload])
    links.write({"ptv0": Link("02:00:00:00:00:01", 1500, VethPeer(workload, "eth0", "02:00:00:00:00:02"))}, ())
    assert len(links.live()) == 1
    netns.remove(workload)
    eventually(lambda: "ptv0" not in ip("link"))
