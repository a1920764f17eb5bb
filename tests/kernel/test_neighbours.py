"""Permanent neighbours as a table, in the real kernel."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from reconciler.errors import KernelError
from reconciler.kernel.neighbours import NeighboursTable
from reconciler.model.network import Neighbour, NeighbourKey

from .hands import ip

KEYS = [NeighbourKey("", "veth0", ip_address("10.1.0.1")), NeighbourKey("", "veth0", ip_address("fd01::1"))]
ROW = Neighbour("02:00:00:00:00:01")
ROWS = dict.fromkeys(KEYS, ROW)


@pytest.fixture
def neighbours(veth: str) -> NeighboursTable:
    return NeighboursTable()


@pytest.fixture
def made(neighbours: NeighboursTable) -> NeighboursTable:
    neighbours.write(ROWS, ())
    return neighbours


def test_written_neighbours_read_as_they_were_written(made: NeighboursTable) -> None:
    assert made.live().rows == ROWS
    assert made.live(KEYS[:1]).rows == {KEYS[0]: ROW}
    assert "lladdr 02:00:00:00:00:01 PERMANENT proto 112" in ip("neigh show 10.1.0.1")


def test_writing_again_changes_nothing(made: NeighboursTable) -> None:
    made.write(ROWS, ())
    assert made.live().rows == ROWS


def test_deleting_what_is_gone_is_success(made: NeighboursTable) -> None:
    made.write({}, KEYS)
    made.write({}, KEYS)
    assert made.live().rows == {}


@pytest.mark.parametrize("address", ["10.1.0.1", "fd01::1"])
@pytest.mark.parametrize(
    "tamper",
    [
        "replace {} dev veth0 lladdr 02:00:00:00:00:99 nud permanent",
        "replace {} dev veth0 lladdr 02:00:00:00:00:01 nud reachable",
        "del {} dev veth0",
    ],
)
def test_a_tampered_neighbour_differs_and_is_repaired(made: NeighboursTable, address: str, tamper: str) -> None:
    ip(f"neigh {tamper.format(address)}")
    assert made.live().rows != ROWS
    made.write(ROWS, ())
    assert made.live().rows == ROWS


def test_what_the_kernel_learned_gives_way(neighbours: NeighboursTable) -> None:
    ip("neigh add 10.1.0.1 dev veth0 lladdr 02:00:00:00:00:99 nud stale")
    neighbours.write(ROWS, ())
    assert neighbours.live().rows == ROWS


@pytest.mark.parametrize("key", KEYS)
def test_a_foreign_permanent_neighbour_is_never_shown_overwritten_or_deleted(
    neighbours: NeighboursTable, key: NeighbourKey
) -> None:
    ip(f"neigh add {key.address} dev veth0 lladdr 02:00:00:00:00:99 nud permanent")
    assert neighbours.live().rows == {}
    with pytest.raises(KernelError, match="is there and is not ours: protocol 0, 02:00:00:00:00:99, permanent"):
        neighbours.write({key: ROW}, ())
    neighbours.write({}, [key])
    assert "02:00:00:00:00:99" in ip(f"neigh show {key.address}")


def test_a_missing_link_is_an_error_on_write_and_success_on_delete(neighbours: NeighboursTable) -> None:
    key = NeighbourKey("", "ptnone", ip_address("10.1.0.1"))
    with pytest.raises(KernelError, match=r"neighbour 10\.1\.0\.1 on ptnone: no link ptnone"):
        neighbours.write({key: ROW}, ())
    neighbours.write({}, [key])
