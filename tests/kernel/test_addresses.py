"""Addresses as a table, in the real kernel."""

from __future__ import annotations

from ipaddress import ip_interface

import pytest

from reconciler.errors import KernelError
from reconciler.kernel.addresses import AddressesTable, marks_addresses
from reconciler.kernel.netns import NamespaceMissing
from reconciler.model.network import Address, AddressKey

from .hands import NETNS, PREFIX, ip, ip_in

IPV4, IPV6 = ip_interface("10.1.0.1/32"), ip_interface("fd01::1/128")


@pytest.fixture
def addresses(workload: str) -> AddressesTable:
    return AddressesTable(lambda: [workload])


def keys(veth: str) -> list[AddressKey]:
    return [AddressKey("", veth, IPV4), AddressKey("", veth, IPV6)]


def test_written_addresses_read_as_they_were_written(addresses: AddressesTable, veth: str, workload: str) -> None:
    rows = {key: Address() for key in [*keys(veth), AddressKey(workload, "lo", ip_interface("10.2.0.1/24"))]}
    addresses.write(rows, ())
    assert addresses.live().rows == rows
    assert "10.2.0.1/24" in ip_in(workload, "address")


def test_an_ipv6_address_is_usable_at_once(addresses: AddressesTable, veth: str) -> None:
    addresses.write({AddressKey("", veth, IPV6): Address()}, ())
    assert "nodad" in ip(f"-6 address show dev {veth} to {IPV6}")
    assert "tentative" not in ip(f"-6 address show dev {veth} to {IPV6}")


@pytest.mark.parametrize("number", [0, 1])
def test_only_the_asked_addresses_are_read(addresses: AddressesTable, veth: str, number: int) -> None:
    asked = keys(veth)[number]
    addresses.write({key: Address() for key in keys(veth)}, ())
    assert addresses.live([asked]).rows == {asked: Address()}


def test_writing_again_changes_nothing(addresses: AddressesTable, veth: str) -> None:
    rows = {key: Address() for key in keys(veth)}
    addresses.write(rows, ())
    addresses.write(rows, ())
    assert addresses.live().rows == rows


def test_a_deleted_address_is_missing_and_comes_back(addresses: AddressesTable, veth: str) -> None:
    rows = {key: Address() for key in keys(veth)}
    addresses.write(rows, ())
    ip(f"address del {IPV4} dev {veth}")
    assert addresses.live().rows.keys() == {AddressKey("", veth, IPV6)}
    addresses.write(rows, ())
    assert addresses.live().rows == rows


def test_deleting_what_is_gone_is_success(addresses: AddressesTable, veth: str) -> None:
    addresses.write({key: Address() for key in keys(veth)}, ())
    addresses.write({}, keys(veth))
    addresses.write({}, keys(veth))
    assert addresses.live().rows == {}


def test_an_ipv6_address_can_change_its_prefix(addresses: AddressesTable, veth: str) -> None:
    wider = AddressKey("", veth, ip_interface("fd01::1/64"))
    addresses.write({AddressKey("", veth, IPV6): Address()}, ())
    addresses.write({wider: Address()}, [AddressKey("", veth, IPV6)])
    assert addresses.live().rows == {wider: Address()}


@pytest.mark.parametrize("address", [IPV4, IPV6])
def test_a_foreign_address_is_never_shown_taken_over_or_deleted(
    addresses: AddressesTable, veth: str, address: object
) -> None:
    ip(f"address add {address} dev {veth}")
    key = AddressKey("", veth, address)
    assert addresses.live().rows == {}
    with pytest.raises(KernelError, match="is there and is not ours"):
        addresses.write({key: Address()}, ())
    addresses.write({}, [key])
    assert str(address) in ip(f"address show dev {veth}")


def test_a_missing_link_is_an_error_on_write_and_success_on_delete(addresses: AddressesTable, host: str) -> None:
    key = AddressKey("", "ptnone", IPV4)
    with pytest.raises(KernelError, match=r"cannot write address 10\.1\.0\.1/32 on ptnone: no link"):
        addresses.write({key: Address()}, ())
    addresses.write({}, [key])


def test_a_missing_namespace_is_an_error_on_write_only(host: str) -> None:
    path = str(NETNS / f"{PREFIX}missing")
    addresses = AddressesTable(lambda: [path])
    key = AddressKey(path, "lo", IPV4)
    with pytest.raises(NamespaceMissing, match=path):
        addresses.write({key: Address()}, ())
    addresses.write({}, [key])
    assert addresses.live().rows == addresses.live([key]).rows == {}


def test_without_marks_global_addresses_of_our_links_are_ours(veth: str) -> None:
    addresses = AddressesTable(marks=False)
    ip(f"address add 10.3.0.1/32 dev {veth}")
    ip("link property add dev veth1 altname plumb-veth1")
    key = AddressKey("", "veth1", IPV4)
    addresses.write({key: Address()}, ())
    assert addresses.live().rows == {key: Address()}  # neither veth0's nor the link-local address of veth1
    addresses.write({}, [key])
    assert addresses.live().rows == {}


@pytest.mark.parametrize(("release", "marks"), [("5.17.3", False), ("5.18.0-1-amd64", True), ("6.1.0-18-amd64", True)])
def test_addresses_are_marked_from_5_18_on(release: str, marks: bool) -> None:
    assert marks_addresses(release) is marks
