"""A workload takes over another one's namespace, interface and addresses in one commit, and none of its rights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon_host import DaemonHost, allowing, made_host, policy
from tests.e2e.packet_flow import Flow, lossless, stopped

pytestmark = pytest.mark.root

OLD, NEW, NEITHER = 4000, 4001, 4002
ADDRESSES = ["10.46.0.50", "fd46::50"]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[DaemonHost]:
    with made_host(tmp_path, "web", "client", audit_interval_s=600) as made:
        made.write("workloads/web.yaml", made.workload("web", addresses=ADDRESSES))
        made.write("policies/web.yaml", policy("web", "web", ingress=[allowing("from", "client", OLD)]))
        made.write("policies/heir.yaml", policy("heir", "heir", ingress=[allowing("from", "client", NEW)]))
        made.wait_for(made.commit())
        made.settle()
        yield made


def test_a_workload_takes_over_everything_of_another_but_its_rights(host: DaemonHost) -> None:
    (host.tree / "workloads/web.yaml").unlink()
    host.write("workloads/heir.yaml", host.workload("heir", netns=host.inside("web"), addresses=ADDRESSES))
    with Flow(host, "client", "web", OLD) as flow, stopped(host, "client", "web", NEITHER):
        flow.more()
        assert flow.arrived > 0
        assert host.outcome(host.commit())["result"] == "applied"
        flow.more()
        arrived = flow.arrived
        flow.more()
    assert flow.arrived == arrived
    assert host.addresses("heir") == ADDRESSES
    host.settle()
    with lossless(host, "client", "web", NEW, ADDRESSES), stopped(host, "client", "web", OLD, ADDRESSES):
        pass
