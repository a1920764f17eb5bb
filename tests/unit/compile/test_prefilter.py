"""Prefilters of a node as rows: each CIDR once, with the document that asked first, and no more than there is room."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, ip_network

import numpy as np
import pytest

from reconciler.compile.budget import Budget
from reconciler.compile.cache import CompileCache
from reconciler.compile.host import Desired, compile_host
from reconciler.compile.prefilter import PrefilterMemory, prefilter, selecting
from reconciler.engine.rows import Columns, DictRows
from reconciler.errors import CompileError
from reconciler.host.fields import prefix
from reconciler.model.cluster import Services, XdpMode
from reconciler.model.datapath import XDP_HOOKS, Hook
from reconciler.model.outside import NodeDevice
from reconciler.model.prefilter import Prefilter
from reconciler.model.selector import Selector, label_is
from reconciler.model.snapshot import Snapshot
from reconciler.source.prefilters import key_of, records
from tests.unit.compile.worlds import HERE, NODES, PROGRAMS, facts_of, origin, snapshot_of

EVERY, EDGE = Selector(), Selector((label_is("k8s", "role", "edge"),))
ALL_PROGRAMS = {
    **PROGRAMS,
    "from_netdev": "digest-in",
    "to_netdev": "digest-out",
    "at_device": "digest-early",
    "in_driver": "digest-driver",
}
BAD = "203.0.113.0/24"


def denies(name: str, *cidrs: str, nodes: Selector = EVERY) -> Prefilter:
    keys = records([key_of(ip_network(cidr)) for cidr in cidrs])
    return Prefilter(name, origin("Prefilter", name), nodes, keys.tobytes(), bytes(8 * len(cidrs)))


def world(*prefilters: Prefilter, labels: dict[str, str] | None = None, **cluster: object) -> Snapshot:
    here = replace(NODES[HERE], labels=labels or {})
    return replace(snapshot_of([], **cluster), prefilters=prefilters, nodes={**NODES, HERE: here})


def rows(snapshot: Snapshot, budget: Budget | None = None) -> Columns:
    return prefilter(snapshot, HERE, PrefilterMemory(), budget)


def shown(found: Columns) -> dict[str, str]:
    """CIDR -> the document that it comes from."""
    said = {}
    for index, key in enumerate(found.keys):
        place = found.origin(index)
        assert place is not None
        said[str(prefix(int(key["high"]), int(key["low"]), int(key["bits"])))] = place.name
    return said


def test_documents_add_up_and_doubles_are_the_first_ones() -> None:
    found = rows(world(denies("a", BAD, "2001:db8::/32", BAD), denies("b", "198.51.100.7", BAD)))
    assert shown(found) == {BAD: "a", "2001:db8::/32": "a", "198.51.100.7": "b"}
    assert sorted(found.values["length"].tolist()) == [24, 32, 32]


def test_what_lies_inside_another_one_is_a_row_too() -> None:
    assert len(rows(world(denies("a", BAD, "203.0.113.0/25", "203.0.113.0/32")))) == 3


@pytest.mark.parametrize(("labels", "count"), [({"role": "edge"}, 1), ({"role": "core"}, 0), ({}, 0)])
def test_a_selector_picks_nodes_by_label(labels: dict[str, str], count: int) -> None:
    assert len(rows(world(denies("a", BAD, nodes=EDGE), labels=labels))) == count


def test_what_denies_nobody_selects_no_node() -> None:
    assert selecting(world(denies("a")), HERE) == ()


def test_the_same_documents_are_the_same_rows() -> None:
    snapshot, memory = world(denies("a", BAD)), PrefilterMemory()
    assert prefilter(snapshot, HERE, memory) is prefilter(replace(snapshot, commit="d" * 40), HERE, memory)


def test_more_than_there_is_room_for_is_an_error_that_names_who_asks_for_most() -> None:
    small, large = denies("small", BAD), denies("large", *(f"10.0.0.{last}" for last in range(4)))
    assert len(rows(world(small, large), Budget(prefilter_rows=5))) == 5
    with pytest.raises(CompileError, match=r"5 IPv4 CIDRs, over the limit of 4(.|\n)*4 CIDRs: Prefilter/large at"):
        rows(world(small, large), Budget(prefilter_rows=4))


def test_each_family_has_room_of_its_own() -> None:
    assert len(rows(world(denies("a", BAD, "2001:db8::/32")), Budget(prefilter_rows=1))) == 2


def test_there_are_no_rows_without_documents() -> None:
    found = rows(world())
    assert (len(found), found.keys.dtype.names) == (0, ("high", "low", "bits", "pad"))
    assert isinstance(found.keys, np.ndarray)


def compiled(snapshot: Snapshot, programs: dict[str, str] = ALL_PROGRAMS) -> Desired:
    facts = replace(facts_of([]), devices={"eth0": NodeDevice(IPv4Address("192.0.2.1"))})
    return compile_host(snapshot, facts, CompileCache(), programs)


def hooks(desired: Desired) -> dict[Hook, str]:
    attachments = desired.tables["attachments"]
    assert isinstance(attachments, DictRows)
    return {key.hook: row.program for key, row in attachments.rows.items() if key.ifname == "eth0"}


AT_TC = {Hook.INGRESS: "from_netdev", Hook.EGRESS: "to_netdev"}
MODES = [
    (XdpMode.OFF, {}),
    (XdpMode.AUTO, {Hook.XDP: "at_device"}),
    (XdpMode.NATIVE, {Hook.XDP_NATIVE: "in_driver"}),
    (XdpMode.GENERIC, {Hook.XDP_GENERIC: "at_device"}),
]


@pytest.mark.parametrize(("mode", "early"), MODES)
def test_who_is_denied_is_looked_for_at_tc_in_every_mode(mode: XdpMode, early: dict[Hook, str]) -> None:
    assert hooks(compiled(world(denies("a", BAD), xdp=mode))) == {**AT_TC, **early}


@pytest.mark.parametrize(("mode", "early"), MODES)
def test_services_are_served_at_xdp_too(mode: XdpMode, early: dict[Hook, str]) -> None:
    assert hooks(compiled(world(services=Services(), xdp=mode))) == {**AT_TC, **early}


def test_without_services_and_prefilters_nothing_is_attached_whatever_the_mode() -> None:
    assert hooks(compiled(world(xdp=XdpMode.NATIVE))) == {}


def test_a_kernel_without_xdp_is_as_off_or_an_error() -> None:
    without = {name: digest for name, digest in ALL_PROGRAMS.items() if name not in ("at_device", "in_driver")}
    assert not hooks(compiled(world(services=Services(), xdp=XdpMode.AUTO), without)).keys() & set(XDP_HOOKS)
    with pytest.raises(CompileError, match=r"cluster/demo.yaml:1 .*xdp.mode is native, and this kernel has no XDP"):
        compiled(world(services=Services(), xdp=XdpMode.NATIVE), without)
