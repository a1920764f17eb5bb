"""A workload in audit mode: what its policies would deny passes and is recorded; the other end's stay in force."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.daemon_host import DaemonHost, made_host, policy
from tests.e2e.packet_flow import BURST, Flow, lossless, stopped

pytestmark = pytest.mark.root

PORT = 4000


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonHost]:
    """Everybody is isolated but for ingress of `client`; `web` is in audit mode, its double has the same labels."""
    with made_host(tmp_path_factory.mktemp("h"), "web", "double", "client", "closed", audit_interval_s=600) as made:
        made.write("workloads/web.yaml", made.workload("web", policyAuditMode=True))
        made.write("workloads/double.yaml", made.workload("double", labels={"app": "web"}))
        made.write("policies/web.yaml", policy("web", "web", ingress=[], egress=[]))
        made.write("policies/closed.yaml", policy("closed", "closed", ingress=[]))
        made.wait_for(made.commit())
        yield made


def test_what_would_be_denied_passes_and_is_recorded_with_its_rule(host: DaemonHost) -> None:
    event = _told(host, "client", "web", "verdict")
    assert (event["reason"], event["rule"]["path"], event["rule"]["field"]) == (
        "audited",
        "policies/web.yaml",
        "ingress",
    )
    with lossless(host, "client", "web", PORT):
        pass


def test_another_workload_with_the_same_labels_is_not_in_audit_mode(host: DaemonHost) -> None:
    assert host.endpoint("web")["identity"] == host.endpoint("double")["identity"]
    with stopped(host, "client", "double", PORT):
        pass


def test_who_is_not_in_audit_mode_refuses_one_that_is(host: DaemonHost) -> None:
    event = _told(host, "web", "closed", "drop")
    assert (event["reason"], event["rule"]["path"]) == ("policy-default", "policies/closed.yaml")
    with stopped(host, "web", "closed", PORT):
        pass


def test_the_list_of_endpoints_and_traces_tell_of_it(host: DaemonHost) -> None:
    assert [host.endpoint(name)["policy"] for name in ("web", "double")] == ["audit", "enforced"]
    told = host.plumb("trace", "--from", "client", "--to", "web", "--port", f"{PORT}/udp")
    assert told.returncode == 0, told.stderr
    assert "ingress of default/web: allow, in audit mode: it would be denied" in told.stdout
    told = host.plumb("map", "show", "ipcache")
    assert "local audit" in told.stdout


def test_an_open_flow_is_cut_when_audit_mode_ends(host: DaemonHost) -> None:
    host.write("workloads/double.yaml", host.workload("double", labels={"app": "web"}, policyAuditMode=True))
    host.wait_for(host.commit())
    with Flow(host, "client", "double", PORT) as flow:
        flow.more()
        host.write("workloads/double.yaml", host.workload("double", labels={"app": "web"}))
        host.wait_for(host.commit())
        arrived = flow.arrived + BURST  # those that were on their way
        flow.more()
    assert 0 < flow.arrived <= arrived


def _told(host: DaemonHost, sender: str, receiver: str, kind: str) -> dict[str, Any]:
    """The first event of this kind while `sender` sends to `receiver`."""
    command = host.command("monitor", "--type", kind, "--from", sender, "--to", receiver, "-n", "1", "-o", "json")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as monitor:
        try:
            port = PORT + 1
            while monitor.poll() is None:  # a verdict is told once a flow
                port += 1
                with Flow(host, sender, receiver, port) as flow:
                    flow.more(16)
            assert monitor.stdout
            event = json.loads(monitor.stdout.read())
        finally:
            monitor.kill()
    assert isinstance(event, dict)
    return event
