"""A commit is a transaction for packets: each is judged by one commit, never by a mixture of two."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.daemon_host import DaemonHost, allowing, made_host, policy
from tests.e2e.packet_flow import BURST, Flow, lossless, stopped

pytestmark = pytest.mark.root

PORT, OTHER, ALWAYS = 4000, 4001, 4002
FIRST, SECOND = ["10.46.0.60", "fd46::60"], ["10.46.0.61", "fd46::61"]
TIMES = 200


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonHost]:
    with made_host(tmp_path_factory.mktemp("h"), "web", "client", "second", audit_interval_s=600) as made:
        yield made


def test_between_commits_no_packet_passes_that_each_forbids_and_none_is_lost_that_each_allows(host: DaemonHost) -> None:
    """One forbids a flow to the sender and lets the receiver take it, the other the other way round."""
    commits = [_both(host, PORT, OTHER), _both(host, OTHER, PORT)]
    _become(host, commits[0])
    with stopped(host, "client", "web", PORT) as flood, lossless(host, "client", "web", ALWAYS):
        sent = flood.sent
        for turn in range(TIMES):
            _become(host, commits[(turn + 1) % 2])
        assert flood.sent - sent > TIMES


def test_a_workload_that_is_relabelled_with_its_policy_neither_loses_nor_gains(host: DaemonHost) -> None:
    """Its identity and every policy that names it change in one commit."""
    commits = []
    for label in ("old", "new"):
        host.write("workloads/client.yaml", host.workload("client", labels={"app": label}))
        host.write("policies/web.yaml", policy("web", "web", ingress=[allowing("from", label, PORT)]))
        host.write("policies/client.yaml", policy("client", label, egress=[allowing("to", "web", PORT)]))
        commits.append(host.commit())
    _become(host, commits[0])
    with lossless(host, "client", "web", PORT), stopped(host, "client", "web", OTHER):
        for turn in range(TIMES // 8):
            _become(host, commits[(turn + 1) % 2])


def test_a_label_that_is_taken_away_takes_established_flows_along(host: DaemonHost) -> None:
    host.write("policies/client.yaml", "")
    host.write("policies/web.yaml", policy("web", "web", ingress=[allowing("from", "client", PORT)]))
    host.write("workloads/client.yaml", host.workload("client"))
    _become(host, host.commit())
    host.write("workloads/client.yaml", host.workload("client", labels={"app": "nobody"}))
    with Flow(host, "client", "web", PORT) as flow:
        flow.more()
        _become(host, host.commit())
        arrived = flow.arrived + BURST  # those that were on their way
        flow.more(1000)
    assert 0 < flow.arrived <= arrived


def test_an_address_that_goes_to_another_workload_takes_no_verdict_along(host: DaemonHost) -> None:
    """Flows to it were allowed for who had it before, and are not for who has it now."""
    host.write("workloads/client.yaml", host.workload("client"))
    host.write("policies/web.yaml", policy("web", "web", ingress=[allowing("from", "client", PORT)]))
    host.write("policies/second.yaml", policy("second", "second", ingress=[]))
    commits = []
    for owner, other in (("web", "second"), ("second", "web")):
        for name, addresses in ((owner, FIRST), (other, SECOND)):
            host.write(f"workloads/{name}.yaml", host.workload(name, addresses=addresses))
        commits.append(host.commit())
    _become(host, commits[0])
    with stopped(host, "client", "second", PORT, FIRST):
        for turn in range(TIMES // 8):
            _become(host, commits[(turn + 1) % 2])


def _become(host: DaemonHost, commit: str) -> None:
    host.git("update-ref", "refs/heads/main", commit)
    host.wait_for(commit)


def _both(host: DaemonHost, sender: int, receiver: int) -> str:
    """At which port `client` may send to `web`, and at which `web` may hear it; one more port is open to both."""
    host.write("policies/client.yaml", policy("client", "client", egress=[allowing("to", "web", sender, ALWAYS)]))
    host.write("policies/web.yaml", policy("web", "web", ingress=[allowing("from", "client", receiver, ALWAYS)]))
    return host.commit()
