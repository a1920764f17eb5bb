"""A push that breaks a PolicyTest is refused, and a flow is traced: through a daemon, and on a host without one."""

from __future__ import annotations

import pytest

from reconciler.lab.processes import running, stop
from tests.e2e.site import Site

pytestmark = pytest.mark.root

_TEST = """\
apiVersion: plumbline/v1
kind: PolicyTest
metadata: {name: web}
spec:
  expectations:
    - {name: clients come in, from: {workload: client}, to: {workload: web}, port: 80/tcp, expect: allowed}
    - {name: strangers do not, from: {workload: stranger}, to: {workload: web}, expect: denied}
"""


def _with_tests(lab: Site) -> str:
    """The commit that is applied once the tests are pushed."""
    lab.write("tests/web.yaml", _TEST)
    pushed = lab.push()
    assert pushed.returncode == 0, pushed.stderr
    commit = lab.json("status")["commit"]
    assert isinstance(commit, str)
    return commit


def test_a_push_that_breaks_an_expectation_is_refused_with_the_trace(lab: Site) -> None:
    before = _with_tests(lab)
    policy = lab.tree / "policies/web.yaml"
    policy.write_text(policy.read_text().replace("app: client", "app: stranger"))
    refused = lab.push()
    assert refused.returncode == 1
    lines = [line.removeprefix("remote: ").rstrip() for line in refused.stderr.splitlines()]
    assert (
        'tests/web.yaml:6:7: expectation "clients come in": default/client to default/web on 80/tcp: '
        "expected allowed, is denied"
    ) in lines
    assert any(line.startswith('tests/web.yaml:7:7: expectation "strangers do not"') for line in lines)
    assert any(line.startswith("    nearest miss: NetworkPolicy/default/web ingress[0]") for line in lines)
    assert lines.count("plumb: refused; nothing changes on any host") == 1
    assert lab.json("status")["commit"] == before
    assert lab.git("ls-remote", "origin", "main").stdout.startswith(before)


def test_a_push_that_takes_away_whom_a_test_speaks_of_is_refused(lab: Site) -> None:
    _with_tests(lab)
    workloads = lab.tree / "workloads/web.yaml"
    workloads.write_text(workloads.read_text().replace("name: stranger", "name: visitor"))
    refused = lab.push()
    assert refused.returncode == 1
    assert 'tests/web.yaml:7:49: there is no Workload "default/stranger"' in refused.stderr


def test_other_branches_are_tested_too(lab: Site) -> None:
    _with_tests(lab)
    lab.write("tests/web.yaml", _TEST.replace("expect: allowed", "expect: denied"))
    lab.commit()
    refused = lab.git("push", "-q", "origin", "HEAD:refs/heads/feature")
    assert refused.returncode == 1
    assert "expected denied, is allowed" in refused.stderr


def test_a_flow_is_traced_on_a_host_by_what_it_allocated(lab: Site) -> None:
    asked = ("trace", "--port", "80/tcp", "--to", "web", "--from")
    commit = lab.json("status")["commit"]
    endpoint = lab.json("endpoint", "show", "stranger")
    for source in ("stranger", "app=stranger", str(endpoint["identity"]), endpoint["addresses"][0]):
        found = lab.json(*asked, source)
        (one,) = found["traces"]
        assert (found["commit"], found["verdict"]) == (commit, "denied")
        assert (one["from"]["name"], one["from"]["identity"]) == ("default/stranger", endpoint["identity"])
        assert one["ingress"]["decided_by"]["commit"] == commit
    by_daemon = lab.plumb(*asked, "client").stdout
    assert by_daemon.splitlines()[0].endswith(f"80/tcp at {commit[:8]}: allowed")
    unknown = lab.plumb(*asked, "nobody")
    assert (unknown.returncode, 'there is no workload "nobody"' in unknown.stderr) == (2, True)
    pid = running(lab.run_directory)
    assert pid
    stop([pid])
    assert lab.plumb(*asked, "client").stdout == by_daemon


def test_a_flow_is_traced_at_a_branch_that_is_not_applied(lab: Site) -> None:
    policy = lab.tree / "policies/web.yaml"
    policy.write_text(policy.read_text().replace("app: client", "app: stranger"))
    lab.commit()
    assert lab.git("push", "-q", "origin", "HEAD:refs/heads/feature").returncode == 0
    asked = ("trace", "--from", "stranger", "--to", "web", "--port", "80/tcp")
    assert [lab.json(*asked, *at)["verdict"] for at in ((), ("--at", "feature"))] == ["denied", "allowed"]


def test_a_row_of_policy_shows_file_line_and_commit(lab: Site) -> None:
    commit = lab.json("status")["commit"]
    rows = [(row["row"]["value"], row["origin"]) for row in lab.json("map", "show", "policy")]
    behind = {(verdict, origin["path"], origin["line"], origin["commit"]) for verdict, origin in rows}
    assert ("allow", "policies/web.yaml", 10, commit) in behind
    assert ("default-deny", "policies/web.yaml", 1, commit) in behind
    assert f"policies/web.yaml:10 @ {commit[:8]}" in lab.plumb("map", "show", "policy").stdout
