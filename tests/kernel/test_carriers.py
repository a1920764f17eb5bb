"""Host ends as a table, in the real kernel: raised where programs run and nowhere else, lowered, and found lowered."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from reconciler.errors import KernelError
from reconciler.kernel.carriers import CarriersTable
from reconciler.kernel.links import LinksTable
from reconciler.model.network import Carrier, Link, VethPeer

from .hands import ip

NAME, OTHER = "ptv0", "ptv1"


def everywhere(names: Collection[str]) -> Collection[str]:
    return names


@pytest.fixture
def links(workload: str) -> LinksTable:
    """Two pairs of ours, as they are made."""
    made = LinksTable(lambda: [workload])
    rows = {
        name: Link(f"02:00:00:00:01:0{number}", 1500, VethPeer(workload, f"eth{number}", f"02:00:00:00:02:0{number}"))
        for number, name in enumerate((NAME, OTHER))
    }
    made.write(rows, ())
    return made


@pytest.fixture
def carriers(links: LinksTable) -> CarriersTable:
    return CarriersTable(everywhere)


def test_a_link_that_was_made_has_no_carrier_until_it_is_raised(carriers: CarriersTable) -> None:
    assert carriers.live().rows == {}
    carriers.write({NAME: Carrier()}, ())
    assert carriers.live().rows == {NAME: Carrier()}
    assert carriers.live([NAME, OTHER, "ptv9"]).rows == {NAME: Carrier()}


def test_a_link_whose_programs_do_not_run_stays_down_and_the_others_are_raised(links: LinksTable) -> None:
    carriers = CarriersTable(lambda names: [name for name in names if name == OTHER])
    with pytest.raises(KernelError, match=f"link {NAME} stays down: its programs do not run on it"):
        carriers.write({NAME: Carrier(), OTHER: Carrier()}, ())
    assert carriers.live().rows == {OTHER: Carrier()}


def test_a_row_that_goes_takes_the_link_down_and_again_is_success(carriers: CarriersTable) -> None:
    carriers.write({NAME: Carrier()}, ())
    carriers.write({}, [NAME, "ptv9"])
    carriers.write({}, [NAME])
    assert "state DOWN" in ip(f"link show {NAME}")


def test_writing_again_changes_nothing(carriers: CarriersTable) -> None:
    for _ in range(2):
        carriers.write({NAME: Carrier()}, ())
    assert carriers.live().rows == {NAME: Carrier()}


def test_what_somebody_took_down_has_no_row(carriers: CarriersTable) -> None:
    carriers.write({NAME: Carrier(), OTHER: Carrier()}, ())
    ip(f"link set {NAME} down")
    assert carriers.live().rows == {OTHER: Carrier()}


def test_a_link_that_is_not_there_cannot_be_raised(carriers: CarriersTable) -> None:
    with pytest.raises(KernelError, match="there is no link ptv9 of ours to raise"):
        carriers.write({"ptv9": Carrier()}, ())


def test_a_foreign_link_is_neither_shown_nor_raised_nor_taken_down(carriers: CarriersTable, veth: str) -> None:
    ip("link set veth1 down")
    assert carriers.live().rows == {}
    with pytest.raises(KernelError, match="no link veth1 of ours"):
        carriers.write({"veth1": Carrier()}, [veth])
    assert "UP" in ip(f"link show {veth}")
    assert "state DOWN" in ip("link show veth1")
