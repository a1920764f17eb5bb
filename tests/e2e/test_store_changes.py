"""A commit that names another store: this host is in the applied commit's store and in no other."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from reconciler.errors import StoreError
from reconciler.host import Host
from reconciler.host.sharing import Joined
from reconciler.kernel.netns import inside
from tests.e2e.daemon_host import DaemonHost, cluster, made_host

pytestmark = pytest.mark.root


@pytest.mark.parametrize("way", ["plan", "converge"])
def test_a_commit_that_is_not_applied_leaves_no_store_open(tmp_path: Path, way: str) -> None:
    with (
        made_host(tmp_path, started=False) as made,
        inside(made.path),
        Host.open(made.config) as host,
    ):
        host.join(Joined(lambda: None, lambda: None))
        host.converge(made.git("rev-parse", "HEAD"))
        before = _of_stores()
        assert before
        for port in (20001, 20002):
            with pytest.raises(StoreError, match=str(port)):
                getattr(host, way)(_commit_with_store(made, port))
            assert _of_stores() == before


def _commit_with_store(made: DaemonHost, port: int) -> str:
    made.write("cluster.yaml", cluster(store={"kind": "etcd", "endpoints": [f"127.0.0.1:{port}"]}))
    return made.commit()


def _of_stores() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("store-")}
