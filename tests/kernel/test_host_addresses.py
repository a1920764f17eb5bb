"""What is the host's own, in the real kernel."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network

import pytest

from reconciler.kernel.addresses import AddressesTable
from reconciler.kernel.host_addresses import host_networks
from reconciler.model.network import Address, AddressKey

from .hands import ip


@pytest.mark.parametrize(
    ("command", "network"),
    [
        ("route add local 10.1.0.0/24 dev lo", "10.1.0.0/24"),
        ("-6 route add local fd01::/64 dev lo", "fd01::/64"),
        ("-6 route add anycast fd01::5 dev lo", "fd01::5/128"),
        ("address add fd01::1/64 dev veth0 nodad", "fd01::/128"),
        ("address add 169.254.20.10/32 dev veth0", "169.254.20.10/32"),
    ],
)
def test_what_the_kernel_takes_for_the_host_is_its_own(veth: str, command: str, network: str) -> None:
    before = host_networks()
    ip(command)
    assert host_networks() == before | {ip_network(network)}


@pytest.mark.parametrize(
    "command",
    [
        "address add 10.1.0.1/24 dev veth0",
        "-6 route add fd01::/64 dev veth0",
        "route add local 10.1.0.0/24 dev lo table 7",
        "address add 127.0.0.9/8 dev lo",
    ],
)
def test_nothing_else_is(veth: str, command: str) -> None:
    before = host_networks()
    ip(command)
    assert host_networks() == before


def test_what_addresses_of_a_commit_bring_along_is_left_out(veth: str) -> None:
    before = host_networks()
    AddressesTable(list).write({AddressKey("", veth, ip_interface("fd01::1/64")): Address()}, ())
    assert host_networks() == before
