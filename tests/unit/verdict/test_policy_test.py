"""PolicyTests of small repositories: which expectations hold, and what is said of those that do not."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path

import pytest

from reconciler.compile.cache import CompileCache
from reconciler.errors import ManifestError, PolicyTestFailed
from reconciler.model.policy_test import DestinationPort, parse_port
from reconciler.source.loading import Cache, load_directory
from reconciler.verdict import policy_test
from reconciler.verdict.policy_test import Result
from tests.unit.cli.plumb import plumb
from tests.unit.source.policy_repository import commit, make
from tests.unit.verdict.test_trace import CLUSTER, WEB, WORKLOADS, cilium, workload

EXAMPLES = sorted(path.parent for path in (Path(__file__).parents[3] / "examples").glob("*/policy-tests.yaml"))
FILES = {"cluster.yaml": CLUSTER.replace("SPEC", "") + WORKLOADS, "web.yaml": WEB}
HOLDS = "- {name: clients come in, from: {workload: client}, to: {workload: web}, port: 80/tcp, expect: allowed}"
FAILS = "- {name: strangers too, from: {workload: stranger}, to: {workload: web}, port: 80/tcp, expect: allowed}"


def manifest(*expectations: str) -> str:
    listed = "".join(f"    {one}\n" for one in expectations)
    return f"apiVersion: plumbline/v1\nkind: PolicyTest\nmetadata: {{name: web}}\nspec:\n  expectations:\n{listed}"


def results(directory: Path, *expectations: str, policy: str = WEB) -> list[Result]:
    for name, text in {**FILES, "web.yaml": policy, "tests.yaml": manifest(*expectations)}.items():
        (directory / name).write_text(text)
    return policy_test.results(load_directory(directory))


def expecting(source: str, expect: str, port: str = "80/tcp", to: str = "{workload: web}") -> str:
    return f"- {{from: {source}, to: {to}, {f'port: {port}, ' if port else ''}expect: {expect}}}"


@pytest.mark.parametrize(
    ("source", "port", "expect", "holds"),
    [
        ("{workload: client}", "80/tcp", "allowed", True),
        ("{workload: default/client}", "81/tcp", "allowed", False),
        ("{workload: client}", "icmp/8", "denied", True),
        ("{workload: client}", "", "denied", False),
        ("{workload: stranger}", "", "denied", True),
        ("{workload: client}", "", "allowed", False),
        ("{labels: {app: client}}", "80/tcp", "allowed", True),
        ("{labels: {}}", "80/tcp", "allowed", False),
        ("{labels: {app: visitor}}", "80/tcp", "denied", True),
        ("{address: 203.0.113.9}", "80/tcp", "denied", True),
        ("{entity: world}", "80/tcp", "denied", True),
        ("{entity: world-ipv6}", "icmpv6/128", "denied", True),
        ("{entity: host}", "80/tcp", "denied", True),
    ],
)
def test_an_expectation_holds_if_every_flow_that_it_stands_for_has_the_verdict(
    tmp_path: Path, source: str, port: str, expect: str, holds: bool
) -> None:
    (found,) = results(tmp_path, expecting(source, expect, port))
    assert (found.holds, found.error) == (holds, "")


def test_without_a_port_the_one_that_is_different_is_found(tmp_path: Path) -> None:
    ranged = WEB.replace("{port: 80}", "{port: 1000, endPort: 2000}")
    allowed, denied = results(
        tmp_path, *(expecting("{workload: client}", verdict, "") for verdict in ("allowed", "denied")), policy=ranged
    )
    assert allowed.failing is not None
    assert denied.failing is not None
    assert (denied.failing.port, denied.failing.verdict) == (DestinationPort(6, 1000), "allowed")
    assert allowed.failing.port.protocol != 6


@pytest.mark.parametrize(
    ("cidr", "denies"),
    [
        ('"fd44:1::/112"', ['toPorts: [{ports: [{port: "0"}]}]']),
        ("10.46.0.0/24", ['toPorts: [{ports: [{port: "0"}, {protocol: ICMP}]}]']),
    ],
    ids=["ICMPv6", "GRE"],
)
def test_without_a_port_what_nothing_names_is_asked_in_the_family_that_is_there(
    tmp_path: Path, cidr: str, denies: list[str]
) -> None:
    node = f"---\napiVersion: plumbline/v1\nkind: Node\nmetadata: {{name: gamma}}\nspec: {{cidrs: [{cidr}]}}\n"
    ends = node + workload("sender", "gamma") + workload("receiver", "gamma")
    entries = ", ".join(f"{{fromEntities: [all], {what}}}" for what in denies)
    deny = f"{{endpointSelector: {{}}, enableDefaultDeny: {{ingress: false}}, ingressDeny: [{entries}]}}"
    (found,) = results(
        tmp_path,
        expecting("{workload: sender}", "denied", "", "{workload: receiver}"),
        policy=ends + cilium("deny", deny),
    )
    assert found.failing is not None
    assert found.failing.verdict == "allowed"


def test_an_address_that_no_flow_goes_to_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"tests\.yaml:6:\d+: ff02::1 is no end of a flow"):
        results(tmp_path, expecting("{workload: client}", "denied", to='{address: "ff02::1"}'))


def test_a_deny_of_everything_holds_on_every_port(tmp_path: Path) -> None:
    deny = "{endpointSelector: {}, ingressDeny: [{fromEntities: [all]}]}"
    (found,) = results(tmp_path, expecting("{workload: client}", "denied", ""), policy=WEB + cilium("deny", deny))
    assert found.holds


def test_what_fails_names_its_place_and_the_flow(tmp_path: Path) -> None:
    holds, fails = results(tmp_path, HOLDS, FAILS)
    assert holds.holds
    assert str(fails.fault) == (
        'tests.yaml:7:7: expectation "strangers too": default/stranger to default/web on 80/tcp: '
        "expected allowed, is denied"
    )


def test_an_expectation_without_a_name_is_told_by_what_it_asks(tmp_path: Path) -> None:
    (found,) = results(tmp_path, expecting("{labels: {app: far}}", "allowed", "53/udp"))
    assert "expectation app=far,namespace=default to default/web on 53/udp: " in str(found.fault)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("10.44.0.2", "10.44.0.2: which workload has it is not known without a host"),
        ("10.44.0.9", ""),  # of web, in its manifest
        ("10.45.0.2", ""),  # the one workload there has another
        ("203.0.113.9", ""),
    ],
)
def test_an_address_that_a_workload_may_be_given_is_noted(tmp_path: Path, address: str, said: str) -> None:
    (found,) = results(tmp_path, expecting(f"{{address: {address}}}", "denied", to="{workload: client-2}"), policy=WEB)
    assert [note.startswith(said) for note in found.notes] == ([True] if said else [])


def test_whom_nobody_is_yet_is_noted(tmp_path: Path) -> None:
    (found,) = results(tmp_path, expecting("{labels: {app: visitor}}", "denied"))
    assert found.notes == ("app=visitor,namespace=default: no workload has these labels: judged as if one had",)


def test_an_expectation_of_nothing_fails(tmp_path: Path) -> None:
    (found,) = results(tmp_path, expecting("{workload: web}", "denied"))
    assert (found.holds, "they must be two" in found.error) == (False, True)


def test_what_is_required_and_fails_is_an_error_with_traces(tmp_path: Path) -> None:
    assert [one.holds for one in results(tmp_path, HOLDS, FAILS)] == [True, False]
    with pytest.raises(PolicyTestFailed) as failed:
        policy_test.require(load_directory(tmp_path))
    head, *trace = str(failed.value).splitlines()
    assert head.startswith('tests.yaml:7:7: expectation "strangers too"')
    assert trace[0] == "  default/stranger -> default/web 80/tcp: denied"
    assert any(line.startswith("    nearest miss: ") for line in trace)
    (tmp_path / "tests.yaml").write_text(manifest(HOLDS))
    assert policy_test.require(load_directory(tmp_path)) == 1


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("80/tcp", DestinationPort(6, 80)),
        ("tcp/80", DestinationPort(6, 80)),
        ("53/UDP", DestinationPort(17, 53)),
        ("icmp/0", DestinationPort(1, 0)),
        ("icmpv6/255", DestinationPort(58, 255)),
        *(
            (text, None)
            for text in ("", "/", "80", "tcp", "80/", "-1/tcp", "0/udp", "65536/sctp", "icmp/256", "80/tcp/x")
        ),
    ],
)
def test_a_port_is_a_number_and_a_protocol(text: str, port: DestinationPort | None) -> None:
    assert parse_port(text) == port
    assert port is None or parse_port(str(port)) == port


def test_the_command_has_a_line_for_each_and_ends_with_1_if_one_fails(tmp_path: Path) -> None:
    make(tmp_path / "r", {**FILES, "tests.yaml": manifest(HOLDS)})
    good = plumb("test", str(tmp_path / "r"))
    assert (good.returncode, good.stdout) == (
        0,
        'ok      default/web  "clients come in": allowed\n1 expectation: 1 as expected, 0 failed\n',
    )
    commit(tmp_path / "r", {"tests.yaml": manifest(HOLDS, FAILS)})
    bad = plumb("test", "--repository", str(tmp_path / "r"))
    assert bad.returncode == 1
    assert 'failed  default/web  tests.yaml:7:7: expectation "strangers too"' in bad.stdout
    assert bad.stdout.endswith("2 expectations: 1 as expected, 1 failed\n")
    before = plumb("test", "--repository", str(tmp_path / "r"), "HEAD~1", "-o", "json")
    assert (before.returncode, json.loads(before.stdout)["failed"]) == (0, 0)
    found = json.loads(plumb("test", str(tmp_path / "r"), "-o", "json").stdout)
    assert [(one["name"], one["holds"], one["verdict"]) for one in found["results"]] == [
        ("clients come in", True, "allowed"),
        ("strangers too", False, "denied"),
    ]
    assert found["results"][1]["trace"]["ingress"]["nearest_miss"]["field"] == "ingress[0]"


def test_a_push_to_a_repository_that_no_daemon_follows_is_tested_too(tmp_path: Path) -> None:
    make(tmp_path / "r", {**FILES, "tests.yaml": manifest(HOLDS)})
    new = commit(tmp_path / "r", {"tests.yaml": manifest(FAILS)})
    pushed = plumb(
        "hook", "pre-receive", cwd=tmp_path / "r", stdin=f"{'0' * 40} {new} refs/heads/main\n", GIT_DIR=".git"
    )
    assert pushed.returncode == 1
    assert f"default/stranger -> default/web 80/tcp at {new[:8]}: denied" in pushed.stdout
    assert "main is refused" in pushed.stdout


def test_a_workload_that_an_expectation_names_cannot_be_deleted(tmp_path: Path) -> None:
    make(tmp_path / "r", {**FILES, "tests.yaml": manifest(HOLDS)})
    without = FILES["cluster.yaml"].replace("name: client,", "name: customer,")
    commit(tmp_path / "r", {"cluster.yaml": without})
    tested = plumb("test", "--repository", str(tmp_path / "r"))
    assert tested.returncode == 3
    assert 'tests.yaml:6:48: there is no Workload "default/client"' in tested.stderr


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_what_an_example_expects_holds(example: Path) -> None:
    found = policy_test.results(load_directory(example))
    assert found
    assert [str(one.fault) for one in found if not one.holds] == []


def test_fifty_expectations_cost_little_after_one_of_a_thousand_policies_changed(tmp_path: Path) -> None:
    """Processor time, so that others' work on the machine does not count."""
    (tmp_path / "cluster.yaml").write_text(FILES["cluster.yaml"] + "".join(map(_numbered_workload, range(1000))))
    for number in range(1000):
        (tmp_path / f"{number}.yaml").write_text(_numbered_policy(number, 80))
    ends = [f"{{workload: n{number}}}" for number in range(51)]
    listed = [expecting(source, "denied", "81/tcp", to) for to, source in pairwise(ends)]
    (tmp_path / "tests.yaml").write_text(manifest(*listed))
    manifests, compiled = Cache(), CompileCache()
    policy_test.require(load_directory(tmp_path, manifests), cache=compiled)
    (tmp_path / "7.yaml").write_text(_numbered_policy(7, 8080))
    changed = load_directory(tmp_path, manifests)
    begun_s = time.process_time()
    assert policy_test.require(changed, cache=compiled) == 50
    assert time.process_time() - begun_s < 0.15


def _numbered_workload(number: int) -> str:
    return (
        f"---\napiVersion: plumbline/v1\nkind: Workload\nmetadata: {{name: n{number}, labels: {{app: n{number}}}}}\n"
        f"spec: {{node: beta, netns: n{number}}}\n"
    )


def _numbered_policy(number: int, port: int) -> str:
    sender = f"{{podSelector: {{matchLabels: {{app: n{number + 1}}}}}}}"
    return (
        f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: n{number}}}\n"
        f"spec:\n  podSelector: {{matchLabels: {{app: n{number}}}}}\n"
        f"  ingress: [{{from: [{sender}], ports: [{{port: {port}}}]}}]\n"
    )
