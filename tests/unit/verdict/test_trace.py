"""What a trace says of flows in small repositories: in words, and as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import UsageError
from reconciler.source.loading import load_directory
from reconciler.verdict.asked_trace import MOST, answer, traces
from tests.unit.cli.plumb import plumb
from tests.unit.source.policy_repository import commit, make

CLUSTER = """\
apiVersion: plumbline/v1
kind: Cluster
metadata: {name: demo}
SPEC---
apiVersion: plumbline/v1
kind: Node
metadata: {name: alpha}
spec: {cidrs: [10.44.0.0/24, "fd44::/112"], addresses: [192.0.2.1]}
---
apiVersion: plumbline/v1
kind: Node
metadata: {name: beta}
spec: {cidrs: [10.45.0.0/24], addresses: [192.0.2.2]}
---
apiVersion: v1
kind: Namespace
metadata: {name: default, labels: {team: demo}}
"""
_ETCD = "{store: {kind: etcd, endpoints: ['192.0.2.9:2379']}}"
WEB = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
    - from: [{podSelector: {matchLabels: {app: client}}}]
      ports: [{port: 80}]
"""


def workload(name: str, node: str = "alpha", addresses: str = "", **labels: str) -> str:
    given = json.dumps({"app": name, **labels})
    return (
        f"---\napiVersion: plumbline/v1\nkind: Workload\nmetadata: {{name: {name}, labels: {given}}}\n"
        f"spec: {{node: {node}, netns: {name}{f', addresses: [{addresses}]' if addresses else ''}}}\n"
    )


WORKLOADS = "".join(
    (
        workload("web", addresses="10.44.0.9"),
        workload("client"),
        workload("stranger"),
        workload("far", "beta", "10.45.0.9"),
        workload("client-2", app="client"),
    )
)


def cilium(name: str, spec: str) -> str:
    return (
        f"---\napiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: default}}\n"
        f"spec: {spec}\n"
    )


class Repository:
    def __init__(self, directory: Path, policy: str = WEB, spec: str = "") -> None:
        (directory / "cluster.yaml").write_text(CLUSTER.replace("SPEC", f"spec: {spec}\n" if spec else "") + WORKLOADS)
        (directory / "web.yaml").write_text(policy)
        self.snapshot = load_directory(directory)

    def ask(self, source: str, destination: str, port: str = "80/tcp") -> dict[str, Any]:
        return answer(traces(self.snapshot, source, destination, port))

    def side(self, source: str, destination: str, port: str = "80/tcp", *, of: str = "ingress") -> dict[str, Any]:
        (one,) = self.ask(source, destination, port)["traces"]
        found = one[of]
        assert isinstance(found, dict)
        return found


def test_a_default_deny_is_told_with_what_isolates_and_what_was_nearest(tmp_path: Path) -> None:
    assert Repository(tmp_path).ask("stranger", "web")["text"] == (
        "default/stranger -> default/web 80/tcp: denied\n"
        "\n"
        "egress of default/stranger: allow\n"
        "  not enforced: no rule isolates it in this direction\n"
        "\n"
        "ingress of default/web: deny, by default\n"
        "  enforced: a rule isolates it in this direction\n"
        "  NetworkPolicy/default/web isolates, and decides  web.yaml:1\n"
        "    - ingress[0]  allow  app=client, namespace=default  80/tcp  not this peer  web.yaml:7\n"
        "  nearest miss: NetworkPolicy/default/web ingress[0] is for this port, but for app=client, namespace=default "
        "only"
    )


def test_json_has_every_rule_with_every_entry(tmp_path: Path) -> None:
    found = Repository(tmp_path).ask("client", "web")
    assert (found["commit"], found["verdict"]) == ("", "allowed")
    (one,) = found["traces"]
    rule = {"reference": "NetworkPolicy/default/web", "path": "web.yaml", "commit": ""}
    entry = {
        **rule,
        "field": "ingress[0]",
        "line": 7,
        "action": "allow",
        "peers": "app=client, namespace=default",
        "ports": "80/tcp",
        "matches": True,
        "misses": [],
        "decides": True,
    }
    isolating = {**rule, "field": "ingress", "line": 1}
    assert one["ingress"] == {
        "verdict": "allow",
        "enforced": True,
        "why": "a rule isolates it in this direction",
        "audited": False,
        "policy_audit_mode": False,
        "by_default": False,
        "decided_by": {**rule, "field": "ingress[0]", "line": 7},
        "isolated_by": [isolating],
        "nearest_miss": None,
        "rules": [{**isolating, "counts": True, "audit": False, "isolates": True, "requires": [], "entries": [entry]}],
    }
    assert one["from"] == {
        "name": "default/client",
        "identity": None,
        "labels": [
            "k8s:app=client",
            "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=default",
            "k8s:io.cilium.k8s.namespace.labels.team=demo",
            "k8s:io.cilium.k8s.policy.cluster=demo",
            "k8s:io.kubernetes.pod.namespace=default",
        ],
        "note": "",
    }
    assert (one["egress"]["enforced"], one["egress"]["decided_by"]["field"]) == (False, "policy.enforcement")


@pytest.mark.parametrize(
    ("source", "port", "misses"),
    [
        ("client", "81/tcp", ["port"]),
        ("client", "80/udp", ["protocol"]),
        ("stranger", "80/tcp", ["peer"]),
        ("stranger", "81/tcp", None),
    ],
)
def test_the_nearest_miss_is_an_entry_that_lacks_one_condition(
    tmp_path: Path, source: str, port: str, misses: list[str] | None
) -> None:
    nearest = Repository(tmp_path).side(source, "web", port)["nearest_miss"]
    assert (nearest and nearest["misses"]) == misses


def test_the_nearest_miss_of_one_icmp_is_the_other_and_no_port(tmp_path: Path) -> None:
    ports = '{fromEndpoints: [{}], toPorts: [{ports: [{port: "80", protocol: TCP}]}]}'
    ping = "{fromEndpoints: [{}], icmps: [{fields: [{type: 8}]}]}"
    spec = f"{{endpointSelector: {{matchLabels: {{app: web}}}}, ingress: [{ports}, {ping}]}}"
    side = Repository(tmp_path, cilium("web", spec)).side("client", "web", "icmpv6/128")
    assert (side["nearest_miss"]["ports"], side["nearest_miss"]["misses"]) == ("icmp/8", ["protocol"])


def test_a_deny_is_told_beside_the_allow_that_it_beats(tmp_path: Path) -> None:
    deny = "{endpointSelector: {}, ingressDeny: [{fromEndpoints: [{matchLabels: {app: client}}]}]}"
    side = Repository(tmp_path, WEB + cilium("deny", deny)).side("client", "web")
    told = [
        (entry["action"], entry["matches"], entry["decides"]) for rule in side["rules"] for entry in rule["entries"]
    ]
    assert told == [("allow", True, False), ("deny", True, True)]
    assert (side["verdict"], side["by_default"], side["nearest_miss"]) == ("deny", False, None)


def test_what_all_entries_require_is_a_condition_of_its_own(tmp_path: Path) -> None:
    spec = "{endpointSelector: {}, ingress: [{fromRequires: [{matchLabels: {zone: a}}]}]}"
    side = Repository(tmp_path, WEB + cilium("zones", spec)).side("client", "web")
    assert (side["verdict"], side["nearest_miss"]["misses"]) == ("deny", ["requires"])
    assert side["rules"][1]["requires"] == ["zone=a, namespace=default"]


def test_a_rule_in_audit_mode_denies_for_the_record(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    audited = tuple(replace(rule, audit=True) for rule in repository.snapshot.rules)
    repository.snapshot = replace(repository.snapshot, rules=audited)
    side = repository.side("stranger", "web")
    assert (side["verdict"], side["audited"], side["nearest_miss"]["misses"]) == ("allow", True, ["peer"])
    assert "allow, in audit mode: it would be denied" in repository.ask("stranger", "web")["text"]


def test_a_workload_in_audit_mode_denies_for_the_record(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    web = replace(repository.snapshot.workloads["default/web"], audit=True)
    repository.snapshot = replace(repository.snapshot, workloads={**repository.snapshot.workloads, "default/web": web})
    side = repository.side("stranger", "web")
    assert (side["verdict"], side["audited"], side["policy_audit_mode"]) == ("allow", True, True)
    assert (side["by_default"], side["nearest_miss"]["misses"]) == (True, ["peer"])
    told = repository.ask("stranger", "web")["text"]
    assert "policyAuditMode: what is denied here is recorded, and passes" in told
    assert repository.side("client", "web")["audited"] is False


def test_settings_of_the_cluster_are_told_where_they_decide(tmp_path: Path) -> None:
    always = Repository(tmp_path, WEB, "{policy: {enforcement: always, allowLocalhost: always}}")
    egress = always.side("client", "web", of="egress")
    assert (egress["verdict"], egress["why"]) == ("deny", "policy.enforcement of the Cluster is always")
    assert egress["decided_by"]["reference"] == "Cluster/demo"
    host = always.side("host", "web")
    assert (host["verdict"], host["decided_by"]["field"]) == ("allow", "policy.allowLocalhost")
    never = Repository(tmp_path, WEB, "{policy: {enforcement: never}}").side("stranger", "web")
    assert (never["verdict"], never["why"]) == ("allow", "policy.enforcement of the Cluster is never")
    assert [rule["counts"] for rule in never["rules"]] == [False]


def test_ends_on_several_nodes_are_judged_on_both_sides(tmp_path: Path) -> None:
    out = "{endpointSelector: {matchLabels: {app: far}}, egress: [{toEndpoints: [{matchLabels: {app: web}}]}]}"
    (one,) = Repository(tmp_path, WEB + cilium("far", out)).ask("far", "web")["traces"]
    assert (one["egress"]["verdict"], one["ingress"]["verdict"], one["verdict"]) == ("allow", "deny", "denied")


def test_a_workload_whose_address_other_nodes_do_not_know_is_unmanaged_to_them(tmp_path: Path) -> None:
    policy = WEB.replace("app: client", "app: far")
    assert Repository(tmp_path, policy).ask("far", "web")["verdict"] == "allowed"
    cluster = (tmp_path / "cluster.yaml").read_text().replace(", addresses: [10.45.0.9]", "")
    (tmp_path / "cluster.yaml").write_text(cluster)
    (one,) = answer(traces(load_directory(tmp_path), "far", "web", "80/tcp"))["traces"]
    assert (one["verdict"], one["ingress"]["nearest_miss"]["misses"]) == ("denied", ["peer"])
    assert one["from"]["note"].startswith("other nodes do not know its address, and take it for unmanaged")


def test_a_workload_of_another_node_is_known_where_hosts_share_an_etcd(tmp_path: Path) -> None:
    repository = Repository(tmp_path, WEB.replace("app: client", "app: far"), _ETCD)
    cluster = (tmp_path / "cluster.yaml").read_text().replace(", addresses: [10.45.0.9]", "")
    (tmp_path / "cluster.yaml").write_text(cluster)
    (one,) = answer(traces(load_directory(tmp_path), "far", "web", "80/tcp"))["traces"]
    assert one["verdict"] == repository.ask("far", "web")["verdict"] == "allowed"
    assert not one["from"]["note"].startswith("other nodes")


def test_labels_stand_for_every_identity_that_has_them(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    assert len(repository.ask("app=client", "web")["traces"]) == 1
    found = repository.ask("namespace=default", "web")
    assert {one["from"]["name"]: one["verdict"] for one in found["traces"]} == {
        "default/client": "allowed",
        "default/stranger": "denied",
        "default/far": "denied",
    }
    assert found["verdict"] == "mixed"


def test_labels_that_nobody_has_are_judged_as_if_somebody_had(tmp_path: Path) -> None:
    (one,) = Repository(tmp_path).ask("app=client,tier=gold", "web")["traces"]
    assert (one["verdict"], one["from"]["note"]) == ("allowed", "no workload has these labels: judged as if one had")


def test_the_world_is_asked_in_both_families_and_an_address_in_its_own(tmp_path: Path) -> None:
    block = WEB.replace("podSelector: {matchLabels: {app: client}}", "ipBlock: {cidr: 0.0.0.0/0}")
    repository = Repository(tmp_path, block)
    assert [one["verdict"] for one in repository.ask("world", "web")["traces"]] == ["allowed", "denied"]
    assert repository.ask("203.0.113.9", "web")["verdict"] == "allowed"
    assert repository.ask("2001:db8::9", "web")["verdict"] == "denied"


def test_the_address_of_a_node_is_the_host_to_its_own_workloads_only(tmp_path: Path) -> None:
    spec = "{endpointSelector: {}, ingress: [{fromEntities: [host]}]}"
    repository = Repository(tmp_path, cilium("host", spec))
    (near,), (far,) = (repository.ask("192.0.2.2", end)["traces"] for end in ("far", "web"))
    assert (near["from"]["name"], near["verdict"]) == ("host", "allowed")
    assert (far["from"]["name"], far["verdict"]) == ("remote-node", "denied")


def test_a_guess_about_an_address_is_called_one(tmp_path: Path) -> None:
    block = WEB.replace("podSelector: {matchLabels: {app: client}}", "ipBlock: {cidr: 10.44.0.128/25}")
    (one, *_) = Repository(tmp_path, block).ask("client", "web")["traces"]
    assert one["from"]["note"] == "its address is not known here; whether 10.44.0.128/25 covers it is a guess"


@pytest.mark.parametrize(
    ("source", "destination", "port", "words"),
    [
        ("wep", "web", "80/tcp", 'there is no workload "wep"; did you mean "default/web"?'),
        ("client", "web", "http", 'port "http" is none like 80/tcp'),
        ("300", "web", "80/tcp", "what identity 300 is, only a host knows"),
        ("web", "web", "80/tcp", "they must be two"),
        ("host", "world", "80/tcp", "one of them must be a workload"),
        ("=x", "web", "80/tcp", '"=x" is not a list of labels'),
        ("", "web", "80/tcp", "nobody is named"),
        ("2001:db8::9", "far", "80/tcp", "they have no address family in common"),
        ("client", "fd44::2", "icmp/8", "icmp/8 goes over IPv4, and fd44::2 is of IPv6 only"),
        ("203.0.113.9", "web", "icmpv6/128", "icmpv6/128 goes over IPv6, and 203.0.113.9 is of IPv4 only"),
        ("client", "10.44.0.999", "80/tcp", '"10.44.0.999" is neither an address nor a workload'),
        ("client", "fd44:::2", "80/tcp", '"fd44:::2" is neither an address nor a workload'),
        ("client", "224.0.0.1", "80/udp", "224.0.0.1 is no end of a flow: multicast and broadcast are dropped before"),
        ("client", "10.44.0.0/24", "80/tcp", '"10.44.0.0/24" is neither an address nor a workload'),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(
    tmp_path: Path, source: str, destination: str, port: str, words: str
) -> None:
    with pytest.raises(UsageError) as refused:
        Repository(tmp_path).ask(source, destination, port)
    assert words in str(refused.value)


def test_too_many_flows_at_once_are_refused(tmp_path: Path) -> None:
    many = "".join(workload(f"n{number}") for number in range(MOST + 1))
    (tmp_path / "many.yaml").write_text(many)
    with pytest.raises(UsageError, match="name fewer"):
        Repository(tmp_path).ask("namespace=default", "web")


def test_the_command_asks_a_commit_without_a_host(tmp_path: Path) -> None:
    files = {"cluster.yaml": CLUSTER.replace("SPEC", "") + WORKLOADS, "web.yaml": WEB}
    make(tmp_path / "r", files)
    first = commit(tmp_path / "r", {"web.yaml": WEB.replace("port: 80", "port: 81")})
    asked = ("trace", "--from", "client", "--to", "web", "--port", "80/tcp", "--repository", str(tmp_path / "r"))
    now, before = plumb(*asked), plumb(*asked, "--at", "HEAD~1", "-o", "json")
    assert f"default/client -> default/web 80/tcp at {first[:8]}: denied\n" in now.stdout
    assert f"web.yaml:7 @ {first[:8]}" in now.stdout
    found = json.loads(before.stdout)
    assert (now.returncode, before.returncode, found["verdict"]) == (0, 0, "allowed")
    assert set(found) == {"commit", "verdict", "traces"}
    refused = plumb(*asked[:-3], "80", *asked[-2:])
    assert (refused.returncode, 'port "80" is none like 80/tcp' in refused.stderr) == (2, True)


def test_a_rule_for_nodes_is_the_hosts_side_of_what_it_exchanges_with_its_workloads(tmp_path: Path) -> None:
    policy = cilium("nodes", '{nodeSelector: {}, ingress: [{toPorts: [{ports: [{port: "22"}]}]}]}')
    repository = Repository(
        tmp_path, policy.replace("NetworkPolicy", "ClusterwideNetworkPolicy").replace(", namespace: default", "")
    )
    assert repository.ask("web", "host", "22/tcp")["verdict"] == "allowed"
    denied = repository.side("web", "host")
    assert (denied["verdict"], denied["decided_by"]["field"]) == ("deny", "ingress")
    assert repository.ask("host", "web")["verdict"] == "allowed"
