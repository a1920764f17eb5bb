"""The examples are valid, and their rows say what their READMEs promise."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from reconciler.compile.cache import CompileCache
from reconciler.compile.host import Desired, compile_host
from reconciler.compile.lint import lint
from reconciler.engine.rows import Columns, DictRows
from reconciler.host.facts import gather
from reconciler.host.fields import prefix
from reconciler.host.service_facts import service_facts
from reconciler.model.cluster import StoreChoice
from reconciler.model.facts import Facts
from reconciler.model.network import HOST_NETNS
from reconciler.source.loading import load_directory
from reconciler.store.embedded import EmbeddedStore
from tests.unit.compile.lookup import IpAddress, judge
from tests.unit.compile.worlds import PROGRAMS

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.name for path in EXAMPLES.iterdir())
HOST = ip_address("192.0.2.1")
ICMP, TCP, UDP = 1, 6, 17
_PROGRAMS = {**PROGRAMS, "from_overlay": "digest-in", "to_overlay": "digest-out"}


class Example:
    """One example on a node of it, the first one if none is named."""

    def __init__(self, name: str, store: EmbeddedStore, node: str = "") -> None:
        self.snapshot = load_directory(EXAMPLES / name)
        self.node = node or min(self.snapshot.nodes)
        self.facts: Facts = gather(self.snapshot, self.node, store, frozenset({HOST}))
        self.desired: Desired = compile_host(self.snapshot, self.facts, CompileCache(), _PROGRAMS)

    def address(self, where: str) -> IpAddress:
        """Of a workload, or the address itself."""
        if where not in self.facts.endpoints:
            return ip_address(where)
        found = self.facts.endpoints[where].address4
        assert found
        return found

    def passes(self, sender: str, receiver: str, protocol: int, port: int) -> bool:
        """Whether the sides that are workloads allow it, egress and ingress."""
        source, destination = self.address(sender), self.address(receiver)
        sides = [(sender, source, destination, True), (receiver, destination, source, False)]
        return all(
            judge(self.desired, subject, peer, protocol, port, egress=egress).passes
            for name, subject, peer, egress in sides
            if name in self.facts.endpoints
        )


@pytest.fixture
def store(tmp_path: Path) -> EmbeddedStore:
    return EmbeddedStore(tmp_path / "store.sqlite")


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_valid_without_warnings_and_compiles(name: str, store: EmbeddedStore) -> None:
    example = Example(name, store)
    assert (example.snapshot.warnings, example.desired.warnings, lint(example.snapshot)) == ((), (), ())
    assert example.desired.complete


@pytest.mark.parametrize("name", NAMES)
def test_an_example_explains_itself(name: str) -> None:
    assert (EXAMPLES / name / "README.md").read_text().startswith("# ")


@pytest.mark.parametrize(
    ("sender", "receiver", "protocol", "port", "passes"),
    [
        ("198.51.100.9", "shop/front", TCP, 443, True),
        ("198.51.100.9", "shop/front", TCP, 80, False),
        ("shop/front", "shop/api", TCP, 8080, True),
        ("shop/front", "shop/db", TCP, 5432, False),
        ("shop/api", "shop/db", TCP, 5432, True),
        ("shop/db", "shop/api", TCP, 8080, False),
        ("shop/db", "198.51.100.9", TCP, 443, False),
        ("ops/monitor", "shop/db", TCP, 9100, True),
        ("ops/monitor", "shop/db", TCP, 5432, False),
        ("shop/front", "shop/api", TCP, 9100, False),
    ],
)
def test_three_tiers_talk_as_their_table_says(
    store: EmbeddedStore, sender: str, receiver: str, protocol: int, port: int, passes: bool
) -> None:
    assert Example("three-tiers", store).passes(sender, receiver, protocol, port) is passes


@pytest.mark.parametrize(
    ("receiver", "protocol", "port", "passes"),
    [
        ("198.51.100.9", TCP, 443, True),
        ("198.51.100.9", TCP, 22, False),
        ("198.51.100.9", ICMP, 8, True),
        ("10.1.2.3", TCP, 443, False),
        ("192.168.1.1", TCP, 80, False),
        ("10.0.0.53", UDP, 53, True),
        ("10.0.0.53", TCP, 443, False),
        ("10.0.0.54", UDP, 53, False),
        ("2001:db8::1", TCP, 443, True),
        ("fd00::1", TCP, 443, False),
    ],
)
def test_egress_reaches_the_world_without_its_exceptions(
    store: EmbeddedStore, receiver: str, protocol: int, port: int, passes: bool
) -> None:
    example = Example("egress", store)
    subject = example.facts.endpoints["default/crawler"]
    own = subject.address6 if ":" in receiver else subject.address4
    assert own
    assert judge(example.desired, own, ip_address(receiver), protocol, port, egress=True).passes is passes


@pytest.mark.parametrize(
    ("sender", "receiver", "port", "passes"),
    [
        ("default/user", "default/service", 80, True),
        ("default/user", "default/service", 9000, False),
        ("default/suspect", "default/service", 80, False),
        ("default/suspect", "default/user", 80, False),
        ("default/user", "default/suspect", 80, False),
        ("default/service", "default/user", 80, True),
        (str(HOST), "default/service", 9000, True),
        ("198.51.100.9", "default/service", 80, False),
    ],
)
def test_a_deny_beats_every_allow(store: EmbeddedStore, sender: str, receiver: str, port: int, passes: bool) -> None:
    assert Example("deny", store).passes(sender, receiver, TCP, port) is passes


def test_a_node_does_not_hear_whom_its_prefilter_names(store: EmbeddedStore) -> None:
    rows = Example("node", store).desired.tables["prefilter"]
    assert isinstance(rows, Columns)
    shown = {str(prefix(int(key["high"]), int(key["low"]), int(key["bits"]))) for key in rows.keys}
    assert shown == {"198.18.0.0/15", "203.0.113.66", "2001:db8:bad::/48"}


def test_a_node_asks_for_routes_rules_and_sysctls(store: EmbeddedStore) -> None:
    tables = Example("node", store).desired.tables
    routes, rules, sysctls = tables["routes"], tables["rules"], tables["sysctls"]
    assert isinstance(routes, DictRows)
    assert isinstance(rules, DictRows)
    assert isinstance(sysctls, DictRows)
    assert {(str(key.destination), key.table, row.ifname) for key, row in routes.rows.items()} == {
        ("0.0.0.0/0", 200, "uplink1"),
        ("198.51.100.0/24", 254, "uplink0"),
        ("10.53.0.0/24", 254, ""),
        ("fd53::/112", 254, ""),
    }
    assert [(key.netns, key.priority, row.table) for key, row in rules.rows.items()] == [(HOST_NETNS, 1000, 200)]
    assert {key.name: row.value for key, row in sysctls.rows.items()} == {
        "net/ipv4/conf/uplink1/rp_filter": "2",
        "net/ipv4/tcp_syncookies": "1",
        "net/ipv4/ip_forward": "1",
        "net/ipv6/conf/all/forwarding": "1",
    }


def test_services_have_the_backends_that_their_manifests_promise(store: EmbeddedStore) -> None:
    example = Example("services", store)
    facts = replace(example.facts, services=service_facts(example.snapshot, store))
    services = compile_host(example.snapshot, facts, CompileCache(), PROGRAMS).services
    found = {
        name: {(one.port, one.weight) for one in given.backends(given.service.ports[0])}
        for name, given in services.items()
    }
    assert found == {
        "shop/api": {(8080, 1), (8081, 1)},
        "shop/front": {(8443, 1)},
        "shop/ledger": {(8443, 2), (8443, 1)},
    }
    assert services["shop/front"].node_ports == (30080,)
    assert services["shop/ledger"].addresses == (ip_address("10.96.0.80"),)


def test_the_backend_of_the_other_node_answers_directly_and_knows_its_clients(store: EmbeddedStore) -> None:
    example = load_directory(EXAMPLES / "direct-return")
    told = replace(example, cluster=replace(example.cluster, store=StoreChoice()))  # without an etcd manifests tell all
    facts = replace(gather(told, "edge", store, frozenset({HOST})), services=service_facts(told, store))
    site = compile_host(told, facts, CompileCache(), _PROGRAMS).services["web/site"]
    assert {str(one.address): one.direct for one in site.backends(site.service.ports[0])} == {
        "10.57.1.10": False,
        "fd57:1::10": False,
        "10.57.2.10": True,
        "fd57:2::10": True,
    }
    on_rack = Example("direct-return", store, "rack")
    assert on_rack.passes("203.0.113.7", "web/site-2", TCP, 8443)
    assert not on_rack.passes(str(example.nodes["edge"].address4), "web/site-2", TCP, 8443)


def test_policy_speaks_of_the_backends_of_services(store: EmbeddedStore) -> None:
    example = Example("services", store)
    assert example.passes("shop/front", "shop/api-1", TCP, 8080)
    assert example.passes("shop/front", "203.0.113.20", TCP, 8443)
    assert not example.passes("shop/front", "203.0.113.99", TCP, 8443)
