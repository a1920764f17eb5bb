"""Whatever carries packets between hosts, policy is the same, and a dead etcd and a dead daemon do nothing to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.lab_cluster import PORTS, lab_cluster
from tests.e2e.packet_flow import Flow

pytestmark = pytest.mark.root

PAUSE_S = 0.04
MODES: dict[str, dict[str, Any]] = {
    "geneve": {"mode": "geneve"},
    "routes of the underlay": {"mode": "native"},
}


@pytest.mark.parametrize("mode", MODES)
def test_policy_holds_between_hosts_whatever_carries_packets_and_whoever_dies(mode: str, tmp_path: Path) -> None:
    with lab_cluster(tmp_path, network=MODES[mode]) as cluster:
        with (
            Flow(cluster, "client", "web", PORTS[0], pause_s=PAUSE_S) as allowed,
            Flow(cluster, "stranger", "web", PORTS[1], pause_s=PAUSE_S) as forbidden,
        ):
            cluster.kill_etcd()
            cluster.kill("beta")
            forbidden.more(50)
            cluster.start_etcd()
            cluster.up()
            cluster.heard()
            allowed.more(50)
        assert (allowed.lost, forbidden.arrived) == (0, 0)
