"""Hosts of one cluster hear of each other through the store: nodes, endpoints and identities, live and dead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.across import pings
from tests.e2e.daemon_host import until
from tests.e2e.joined_hosts import Joined, joined, learns

pytestmark = pytest.mark.root

TTL_S = 2


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Joined]:
    """alpha and beta, with a workload each, on etcd."""
    cluster = {"store": {"kind": "etcd", "ttl": TTL_S}, "network": {"mode": "vxlan"}}
    with joined(tmp_path, "alpha", "beta", cluster=cluster) as hosts:
        hosts["alpha"].add("client")
        hosts["beta"].add("web")
        hosts.first.commit()
        hosts.start()
        hosts.commit()
        yield hosts


def test_an_endpoint_is_known_elsewhere_by_what_its_host_announced(two: Joined) -> None:
    (web4, web6), identity = two["beta"].addresses("web"), two["beta"].endpoint("web")["identity"]
    learns(two["alpha"], web4, identity)
    learns(two["alpha"], web6, identity)
    until(lambda: pings(two["alpha"].inside("client"), web4), "the client reaches web")
    until(lambda: pings(two["alpha"].inside("client"), web6), "the client reaches web by IPv6")
