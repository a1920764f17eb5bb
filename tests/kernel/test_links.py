"""Veth pairs as a table, in the real kernel: made, tampered with, repaired, deleted, and foreign ones left alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from reconciler.errors import KernelError
from reconciler.kernel.links import LinksTable
from reconciler.kernel.netns import NamespaceMissing
from reconciler.model.network import HOST_NETNS, Link, VethPeer

from .hands import NETNS, PREFIX, ip, ip_in

HOST_MAC, MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
NAME = "ptv0"


@pytest.fixture
def links(workload: str) -> LinksTable:
    return LinksTable(lambda: [workload])


@pytest.fixture
def row(workload: str) -> Link:
    return Link(HOST_MAC, 1450, VethPeer(workload, "eth0", MAC))


@pytest.fixture
def made(links: LinksTable, row: Link) -> LinksTable:
    links.write({NAME: row}, ())
    return links


def index() -> str:
    return ip(f"-oneline link show {NAME}").split(":")[0]


def test_a_written_pair_reads_as_it_was_written(made: LinksTable, row: Link) -> None:
    assert made.live().rows == {NAME: row}
    assert made.live([NAME]).rows == {NAME: row}


def test_both_ends_carry_the_alternative_name(made: LinksTable, workload: str) -> None:
    assert f"altname plumb-{NAME}" in ip(f"link show {NAME}")
    assert f"altname plumb-{NAME}" in ip_in(workload, "link show eth0")


def test_several_pairs_are_told_apart(made: LinksTable, row: Link, workload: str) -> None:
    other = Link("02:00:00:00:00:03", 1400, VethPeer(workload, "eth1", "02:00:00:00:00:04"))
    made.write({"ptv1": other}, ())
    assert made.live().rows == {NAME: row, "ptv1": other}
    assert made.live(["ptv1", "ptv9"]).rows == {"ptv1": other}


def test_a_host_end_is_made_down_and_stays_as_it_is_when_it_is_changed(made: LinksTable, row: Link) -> None:
    assert "state DOWN" in ip(f"link show {NAME}")
    made.write({NAME: replace(row, mtu_bytes=1400)}, ())
    assert "state DOWN" in ip(f"link show {NAME}")
    ip(f"link set {NAME} up")
    made.write({NAME: row}, ())
    assert "state UP" in ip(f"link show {NAME}")


def test_another_mtu_takes_no_neighbour_away(made: LinksTable, row: Link) -> None:
    ip(f"link set {NAME} up")
    ip(f"neigh add 192.0.2.1 lladdr {MAC} dev {NAME} nud permanent")
    made.write({NAME: replace(row, mtu_bytes=1400)}, ())
    assert MAC in ip(f"neigh show dev {NAME}")


def test_a_workload_end_can_be_made_down_and_with_an_mtu_of_its_own(links: LinksTable, row: Link) -> None:
    wanted = replace(row, peer=replace(row.peer, up=False, mtu_bytes=1400))
    links.write({NAME: wanted}, ())
    assert links.live().rows == {NAME: wanted}


def test_writing_again_changes_nothing(made: LinksTable, row: Link) -> None:
    before = index()
    made.write({NAME: row}, ())
    assert (index(), made.live().rows) == (before, {NAME: row})


@pytest.mark.parametrize(
    "tamper",
    [
        f"link set {NAME} mtu 1300",
        f"link set {NAME} address 02:00:00:00:00:99",
    ],
)
def test_a_tampered_host_end_differs_and_is_repaired_in_place(made: LinksTable, row: Link, tamper: str) -> None:
    before = index()
    ip(tamper)
    assert made.live().rows[NAME] != row
    made.write({NAME: row}, ())
    assert (index(), made.live().rows) == (before, {NAME: row})


@pytest.mark.parametrize(
    "tamper",
    [
        "link set eth0 down",
        "link set eth0 mtu 1300",
        "link set eth0 address 02:00:00:00:00:99",
        f"link property del dev eth0 altname plumb-{NAME}",
    ],
)
def test_a_tampered_workload_end_differs_and_is_repaired_in_place(
    made: LinksTable, row: Link, workload: str, tamper: str
) -> None:
    before = index()
    ip_in(workload, tamper)
    assert made.live().rows[NAME] != row
    made.write({NAME: row}, ())
    assert (index(), made.live().rows) == (before, {NAME: row})


def test_a_renamed_workload_end_is_made_anew(made: LinksTable, row: Link, workload: str) -> None:
    ip_in(workload, "link set eth0 down")
    ip_in(workload, "link set eth0 name eth9")
    assert made.live().rows[NAME].peer.name == "eth9"
    made.write({NAME: row}, ())
    assert made.live().rows == {NAME: row}


def test_a_workload_end_moved_to_an_unknown_place_is_made_anew(
    made: LinksTable, row: Link, workload: str, namespace: Callable[[str], str]
) -> None:
    elsewhere = namespace("elsewhere").rsplit("/", 1)[1]
    ip_in(workload, f"link set eth0 netns {elsewhere}")
    assert made.live().rows[NAME].peer == VethPeer("", "", "")
    made.write({NAME: row}, ())
    assert made.live().rows == {NAME: row}


def test_a_workload_end_moved_to_a_known_place_is_seen_there(
    row: Link, workload: str, namespace: Callable[[str], str]
) -> None:
    elsewhere = namespace("elsewhere")
    links = LinksTable(lambda: [workload, elsewhere])
    links.write({NAME: row}, ())
    ip_in(workload, f"link set eth0 netns {elsewhere.rsplit('/', 1)[1]}")
    assert links.live().rows[NAME].peer.netns == elsewhere


def test_a_deleted_pair_is_gone_at_both_ends_and_deleting_again_is_success(made: LinksTable, workload: str) -> None:
    made.write({}, [NAME])
    made.write({}, [NAME])
    assert made.live().rows == {}
    assert "eth0" not in ip_in(workload, "link")


def test_a_pair_that_lost_its_alternative_name_is_in_the_way_and_stays(made: LinksTable, row: Link) -> None:
    ip(f"link property del dev {NAME} altname plumb-{NAME}")
    assert made.live().rows == {}
    with pytest.raises(KernelError, match=f"link {NAME} is there and is not ours: veth"):
        made.write({NAME: row}, ())
    made.write({}, [NAME])
    assert NAME in ip("link")


def test_a_foreign_link_is_never_shown_overwritten_or_deleted(links: LinksTable, row: Link) -> None:
    ip(f"link add {NAME} type bridge")
    assert links.live().rows == {}
    with pytest.raises(KernelError, match=f"link {NAME} is there and is not ours: bridge"):
        links.write({NAME: row}, ())
    links.write({}, [NAME])
    assert "bridge" in ip(f"-details link show {NAME}")


def test_a_foreign_link_in_the_workload_is_an_error_that_leaves_nothing(
    links: LinksTable, row: Link, workload: str
) -> None:
    ip_in(workload, "link add eth0 type bridge")
    with pytest.raises(KernelError, match=f"link eth0 in {workload} is there and is not ours: bridge"):
        links.write({NAME: row}, ())
    assert NAME not in ip("link")


def test_a_foreign_link_with_our_alternative_name_is_an_error_that_leaves_nothing(
    links: LinksTable, row: Link, veth: str
) -> None:
    ip(f"link property add dev {veth} altname plumb-{NAME}")
    with pytest.raises(KernelError, match=f"cannot write link {NAME}"):
        links.write({NAME: row}, ())
    assert f" {NAME}@" not in ip("link")


def test_a_missing_namespace_is_an_error_on_write_and_nothing_on_read(row: Link) -> None:
    path = str(NETNS / f"{PREFIX}missing")
    links = LinksTable(lambda: [path])
    with pytest.raises(NamespaceMissing, match=path):
        links.write({NAME: replace(row, peer=replace(row.peer, netns=path))}, ())
    assert links.live().rows == {}


def test_the_hosts_own_namespace_is_refused_by_whatever_path(made: LinksTable, row: Link, host: str) -> None:
    """`made` already has the pair: it must not be torn down either."""
    for path in (host, f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"):
        with pytest.raises(KernelError, match="is the host's own network namespace, not a workload's"):
            made.write({NAME: replace(row, peer=replace(row.peer, netns=path))}, ())
    assert made.live().rows == {NAME: row}


def test_a_pair_within_the_hosts_namespace_is_refused(links: LinksTable, row: Link) -> None:
    with pytest.raises(KernelError, match="namespace of its own"):
        links.write({NAME: replace(row, peer=replace(row.peer, netns=HOST_NETNS))}, ())
