"""Prefilters: what they deny as columns, and what they must not deny."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import ManifestError
from reconciler.model.prefilter import Prefilter, masked
from reconciler.source import manifests
from reconciler.source.addresses import Network
from reconciler.source.loading import load_directory
from reconciler.source.prefilter_claims import overlaps
from reconciler.source.prefilters import key_of, records

HEAD = "apiVersion: plumbline/v1\nkind: Prefilter\nmetadata: {name: bad}\nspec:\n  deny:\n"
CLUSTER = """apiVersion: plumbline/v1
kind: Cluster
metadata: {name: demo}
spec:
  store: {kind: etcd, endpoints: ["192.0.2.77:2379", "[2001:db8:5::7]:2379", "etcd.example.org:2379"]}
  services: {cidrs: [10.96.0.0/16, "fd96::/112"]}
  pools: [{cidr: 10.50.0.0/16, nodePrefix: 24}]
---
apiVersion: plumbline/v1
kind: Node
metadata: {name: alpha}
spec: {addresses: [192.0.2.1, "2001:db8::1"], cidrs: [10.44.0.0/24, "fd44::/112"]}
---
"""
networks = st.one_of(
    st.builds(
        lambda first, bits: ip_network((bytes([10, first, 0, 0]), bits), strict=False),
        st.integers(0, 3),
        st.integers(6, 32),
    ),
    st.builds(
        lambda first, bits: ip_network((bytes([0xFD, first, *bytes(14)]), bits), strict=False),
        st.integers(0, 3),
        st.integers(6, 128),
    ),
    st.just(ip_network("::/0")),
    st.just(ip_network("0.0.0.0/0")),
)


def prefilter(*entries: str) -> Prefilter:
    found = manifests.read((HEAD + "".join(f"  - {entry}\n" for entry in entries)).encode())
    assert found.faults == ()
    content = found.documents[0].content
    assert isinstance(content, Prefilter)
    return content


def refused(*entries: str) -> list[tuple[int, str]]:
    """Line among the entries, and message."""
    found = manifests.read((HEAD + "".join(f"  - {entry}\n" for entry in entries)).encode())
    return [(fault.line - HEAD.count("\n"), fault.message) for fault in found.faults]


def read(keys: np.ndarray[tuple[int], np.dtype[np.void]]) -> list[tuple[int, int]]:
    return [(int(key["high"]) << 64 | int(key["low"]), int(key["bits"])) for key in keys]


def test_entries_are_addresses_and_cidrs_of_either_family() -> None:
    entries = ("203.0.113.0/24", "198.51.100.7", "2001:db8::/32", '"2001:DB8::7"', "0.0.0.0/0", '"::/0"')
    mapped = 0xFFFF << 32
    assert read(prefilter(*entries).keys) == [
        (mapped | int(ip_address("203.0.113.0")), 96 + 24),
        (mapped | int(ip_address("198.51.100.7")), 128),
        (int(ip_address("2001:db8::")), 32),
        (int(ip_address("2001:db8::7")), 128),
        (mapped, 96),
        (0, 0),
    ]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("203.0.113.9/24", "203.0.113.9/24 has bits below its prefix length: write 203.0.113.0/24"),
        ("2001:db8::1/64", "2001:db8::1/64 has bits below its prefix length: write 2001:db8::/64"),
        ("203.0.113.0/33", '"203.0.113.0/33" is not an address or a CIDR'),
        ("203.0.113.0/024", '"203.0.113.0/024" is not an address or a CIDR'),
        ("203.0.113", '"203.0.113" is not an address or a CIDR'),
        ("203.0.113.0/", '"203.0.113.0/" is not an address or a CIDR'),
        ("example.org", '"example.org" is not an address or a CIDR'),
        ('"fe80::1%eth0"', '"fe80::1%eth0" is not an address or a CIDR'),
        ('"::ffff:203.0.113.9"', "::ffff:203.0.113.9 is IPv4 in IPv6 form: write the IPv4 form, 203.0.113.9"),
    ],
)
def test_what_is_no_cidr_is_refused_with_its_line(entry: str, message: str) -> None:
    assert refused("198.51.100.0/24", entry) == [(2, message)]


def test_a_number_is_refused_by_the_schema() -> None:
    [(line, message)] = refused("10.0.0.0/8", "17")
    assert (line, "must be a string" in message) == (2, True)


@pytest.mark.parametrize(
    ("entry", "needed"),
    [
        ("192.0.2.0/26", "192.0.2.1, an address of Node alpha at cluster.yaml:9"),
        ("192.0.2.1", "192.0.2.1, an address of Node alpha at cluster.yaml:9"),
        ('"2001:db8::/64"', "2001:db8::1, an address of Node alpha at cluster.yaml:9"),
        ("10.44.0.0/16", "10.44.0.0/24, for workloads of Node alpha at cluster.yaml:9"),
        ("10.44.0.9", "10.44.0.0/24, for workloads of Node alpha at cluster.yaml:9"),
        ("10.96.1.0/24", "10.96.0.0/16, for services of the Cluster at cluster.yaml:1"),
        ('"fd96::/16"', "fd96::/112, for services of the Cluster at cluster.yaml:1"),
        ("10.50.0.0/16", "10.50.0.0/16, a pool for nodes of the Cluster at cluster.yaml:1"),
        ("192.0.2.64/26", "192.0.2.77, a server of the store of the Cluster at cluster.yaml:1"),
        ('"2001:db8:5::/48"', "2001:db8:5::7, a server of the store of the Cluster at cluster.yaml:1"),
        ('"fe80::1"', "fe80::/10, by which neighbours find each other"),
    ],
)
def test_what_the_cluster_speaks_with_is_not_denied(tmp_path: Path, entry: str, needed: str) -> None:
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    (tmp_path / "bad.yaml").write_text(f"{HEAD}  - 203.0.113.0/24\n  - {entry}\n")
    with pytest.raises(ManifestError) as caught:
        load_directory(tmp_path)
    shown = ip_network(entry.strip('"'))
    [fault] = caught.value.faults
    assert str(fault) == f"bad.yaml:7:5: {shown} cuts off {needed}: leave it out, or split the CIDR"


def test_all_of_ipv6_does_not_hold_an_address_of_ipv4() -> None:
    assert overlaps(records([key_of(ip_network("::/0"))]), records([key_of(ip_network("192.0.2.1"))])) == {}


@given(st.lists(networks, min_size=1, max_size=12), st.lists(networks, min_size=1, max_size=12, unique=True))
def test_two_cidrs_overlap_if_one_holds_the_other(keys: list[Network], others: list[Network]) -> None:
    found = overlaps(records([key_of(one) for one in keys]), records([key_of(one) for one in others]))
    for index, one in enumerate(keys):
        overlapping = [other for other in others if other.version == one.version and other.overlaps(one)]
        assert (index in found) == bool(overlapping)
        assert index not in found or others[found[index]] in overlapping


@pytest.mark.parametrize("bits", [0, 1, 63, 64, 65, 127, 128])
def test_a_mask_has_so_many_bits(bits: int) -> None:
    high, low = masked(records([(b"\xff" * 16, 128)]), bits)
    assert int(high[0]) << 64 | int(low[0]) == (1 << 128) - (1 << 128 - bits)


def test_several_prefilters_add_up_and_say_which_nodes_they_are_for(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    (tmp_path / "bad.yaml").write_text(f"{HEAD}  - 203.0.113.0/24\n")
    selected = HEAD.replace("bad", "edge").replace("spec:\n", "spec:\n  nodeSelector: {matchLabels: {role: edge}}\n")
    (tmp_path / "edge.yaml").write_text(f"{selected}  - 198.51.100.0/24\n")
    found = load_directory(tmp_path).prefilters
    assert [(one.name, one.origin.path, len(one.nodes.requirements)) for one in found] == [
        ("bad", "bad.yaml", 0),
        ("edge", "edge.yaml", 1),
    ]
