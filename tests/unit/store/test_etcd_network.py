"""An etcd behind a network that swallows packets: nobody refuses, nobody answers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from reconciler.errors import StoreError
from reconciler.store.etcd import EtcdStore
from reconciler.store.etcd_servers import Servers

from .contract import polled
from .etcd_server import EtcdServer

pytestmark = pytest.mark.root

NAMESPACE = f"pt-etcd-{os.getpid()}"
LINK = f"pt-{os.getpid()}"
_THIRD, _FOURTH = divmod(os.getpid() % 16384 * 4, 256)
HERE, THERE = (f"198.18.{_THIRD}.{_FOURTH + last}" for last in (1, 2))  # RFC 2544: for tests of networks


def run(command: str) -> None:
    result = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{command}: {result.stderr}"


def within(command: str) -> None:
    run(f"nsenter --net=/run/netns/{NAMESPACE} {command}")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EtcdServer]:
    """In a namespace of its own, at the other end of a veth pair."""
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    run(f"ip netns add {NAMESPACE}")
    started = EtcdServer(tmp_path, address=THERE, within=["nsenter", f"--net=/run/netns/{NAMESPACE}"])
    try:
        run(f"ip link add {LINK} type veth peer name eth0 netns {NAMESPACE}")
        run(f"ip address add {HERE}/30 dev {LINK}")
        run(f"ip link set {LINK} up")
        within(f"ip address add {THERE}/30 dev eth0")
        within("ip link set eth0 up")
        within("ip link set lo up")
        started.start()
        yield started
    finally:
        started.kill()
        run(f"ip netns delete {NAMESPACE}")


def cut() -> None:
    """Both ways."""
    within("nft add table inet pt")
    for hook, device in (("input", "iif"), ("output", "oif")):
        within(f"nft add chain inet pt {hook} {{ type filter hook {hook} priority 0 ; }}")
        within(f"nft add rule inet pt {hook} {device} eth0 drop")


def heal() -> None:
    within("nft delete table inet pt")


def test_calls_end_and_the_watch_hears_what_happened_meanwhile(server: EtcdServer) -> None:
    with (
        closing(EtcdStore(Servers([server.endpoint]))) as store,
        closing(store.watch("/w/", store.range("/w/").revision)) as watch,
    ):
        store.put("/w/leased", b"1", store.lease(2))
        assert [event.value for event in polled(watch, 1)] == [b"1"]
        cut()
        with pytest.raises(StoreError, match=f"{server.endpoint}: it does not answer"):
            store.get("/w/leased")
        assert watch.poll(0) == []
        heal()
        assert [(event.key, event.value) for event in polled(watch, 1)] == [("/w/leased", None)]
        assert store.put("/w/after", b"2")
        assert [event.key for event in polled(watch, 1)] == ["/w/after"]
