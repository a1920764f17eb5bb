"""Net nanoseconds a packet at a node device: known flows at XDP, packets of no service, and flows that begin at tc.

A client and a backend of another node are neighbours at the device `b`. `swap` only reads as far as the ports and swaps
the MAC addresses; beyond an empty program that takes as good as nothing, so it is no baseline to divide by. `direct`:
the backend answers its client itself, and packets are wrapped for it in IPv4; `grow` only makes room for that, and the
baseline of a new flow is to remember it, in a table as large.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

import numpy as np

from reconciler.bpf import maps, programs
from reconciler.bpf.syscalls import held
from reconciler.kernel import netns
from reconciler.kernel.devices import DevicesTable
from reconciler.lab.underlay import run_ip
from reconciler.model.datapath import GATEWAY_MAC
from reconciler.model.outside import DeviceFlag, DeviceRow
from tests.bench import packets
from tests.bench.again import EMPTY, Again, Bench, Flows, bench, options_for
from tests.bench.bed import BPFFS, PREFIX, B, Bed, made
from tests.bench.building import OBJECTS
from tests.bench.figures import Figure, median
from tests.bench.limits import forget_new_flows
from tests.datapath.services import OUTSIDE, Services

ROUNDS, REPEAT = 41, 10_000
FLOWS = 1000
CLIENT, HOST, BACKEND = "203.0.113.9", "10.99.0.1", "10.99.7.7"
NODE_PORT, PORT = 30080, 8080
BACKEND_MAC = "02:00:00:00:07:07"
_FIRST_PORT, _NEXT_SOURCE_PORT = 20_000, 1 << 16
_XDP_MD = struct.Struct("=6I")
_TX, _PASS = 3, 2  # enum xdp_action
_IPIP, _OUTER = 2, 20  # of enum direct_return; the outer header's bytes
_ALL = 1 << 31  # new flows that are remembered in a tick: what is measured is one that is


@dataclass(slots=True)
class Early:
    """One packet, or the packets of some flows, at XDP; `around` runs the program, `around_empty` an empty one."""

    name: str
    packet: bytes
    ifindex: int
    around: int
    around_empty: int
    grown: int = 0  # bytes by which the packet is longer after it
    times: list[float] = field(default_factory=list)

    def meet(self, flows: int) -> None:
        """Once each of so many flows."""
        programs.run(self.around, self.packet, self._context(), flows)

    def measure(self) -> None:
        self.times.append(self._cpu_ns(self.around) - self._cpu_ns(self.around_empty))

    def result(self) -> int:
        ran = programs.run(self.around, self.packet, self._context())
        assert len(ran.packet) == len(self.packet) + self.grown
        return ran.result

    def _context(self) -> bytes:
        return _XDP_MD.pack(0, len(self.packet), 0, self.ifindex, 0, 0)

    def _cpu_ns(self, program: int) -> float:
        began = time.thread_time_ns()
        programs.run(program, self.packet, self._context(), REPEAT)
        return (time.thread_time_ns() - began) / REPEAT


class Node(Bed):
    """Its device `b` faces client and backend; one service has a node port."""

    flags = 0  # enum backend_flags, of its backend

    def make(self) -> None:
        super().make()
        pin = self.pins / "programs" / f"in_driver-{self.digest('in_driver')}"
        run_ip(
            self.path,
            [
                f"address add {HOST}/32 dev {B.name}",
                f"route add {BACKEND}/32 dev {B.name}",
                f"neigh replace {BACKEND} lladdr {BACKEND_MAC} dev {B.name} nud permanent",
                f"link set dev {B.name} xdpdrv pinned {pin}",
            ],
        )
        with netns.inside(self.path):
            self.tables["endpoints"].write({}, [IPv4Address(B.address4), IPv6Address(B.address6)])  # type: ignore[arg-type]
            DevicesTable(self.maps).write({B.name: DeviceRow(DeviceFlag.SERVICES, IPv4Address(HOST))}, ())
        services = Services(self.maps)
        services.serve(HOST, NODE_PORT, [f"{BACKEND}:{PORT}"], scope=OUTSIDE)
        services.know(f"{BACKEND}:{PORT}", flags=self.flags)

    def forget_translations(self) -> None:
        map_ = self.maps.open("translations")
        map_.delete(map_.read()[0])


class DirectNode(Node):
    """Its backend answers clients itself."""

    flags = 1 << 4  # BACKEND_DIRECT


def measure() -> Iterator[Figure]:
    yield from _translated()
    yield from _direct()


def _translated() -> Iterator[Figure]:
    with ExitStack() as stack:
        tool = stack.enter_context(bench(BPFFS / f"{PREFIX}-tool", OBJECTS))
        node = stack.enter_context(made(Node("xdp", serving=True)))
        with netns.inside(node.path):
            begin, leave, fresh = _at_tc(tool, node, stack)
            cases = _cases(tool, node, stack)
            began: list[float] = []
            for _ in range(ROUNDS):
                node.forget_translations()
                began.append(fresh.net_ns(REPEAT))
                node.forget_translations()
                begin.run(FLOWS)
                leave.run(FLOWS)
                assert [case.result() for case in cases] == [_TX, _TX, _PASS]
                for case in cases:
                    case.measure()
    swap, known, other = (median(case.times) for case in cases)
    yield Figure("xdp.swap", swap, "ns")
    yield Figure("xdp.known_flow", known, "ns")
    yield Figure("xdp.not_ours", other, "ns")
    yield Figure("xdp.new_flow_at_tc", median(began), "ns")


def _direct() -> Iterator[Figure]:
    with ExitStack() as stack:
        tool = stack.enter_context(bench(BPFFS / f"{PREFIX}-tool", OBJECTS))
        options = {"direct_return": _IPIP, "remembered_per_tick": _ALL}
        node = stack.enter_context(made(DirectNode("direct", serving=True, **options)))
        remember = tool.object("limits", {}).descriptor("remember")
        with netns.inside(node.path):
            cases = _direct_cases(tool, node, stack)
            insert = tool.again(remember, _asks(HOST, NODE_PORT), flows=_flows(REPEAT))
            inserted: list[float] = []
            for _ in range(ROUNDS):
                forget_new_flows(tool)
                inserted.append(insert.net_ns(REPEAT))
                for case in cases:
                    if case.name == "direct_new":
                        node.forget_translations()
                    else:
                        case.meet(FLOWS)
                    assert case.result() == _TX
                    case.measure()
    grow, known, one, new = (median(case.times) for case in cases)
    yield Figure("xdp.grow", grow, "ns")
    yield Figure("xdp.direct_known_flow", known, "ns")
    yield Figure("xdp.direct_known_flow_of_one", one, "ns")
    yield Figure("xdp.direct_new_flow", new, "ns", median(inserted))


def _direct_cases(tool: Bench, node: Node, stack: ExitStack) -> list[Early]:
    program, index = stack.enter_context(held(node.program("in_driver"))), node.index(B)
    known, first = _asks(HOST, NODE_PORT), _asks(HOST, NODE_PORT, packets.SYN)
    grow = tool.object("early", {}).descriptor("grow")
    return [
        _early(tool, "grow", 1, grow, known, index, grows=_OUTER),
        _early(tool, "direct_known_flow", 2, program, known, index, _flows(FLOWS), grows=_OUTER),
        _early(tool, "direct_known_flow_of_one", 2, program, known, index, grows=_OUTER),
        _early(tool, "direct_new", 2, program, first, index, _flows(REPEAT), grows=_OUTER),
    ]


def _flows(count: int, port: int = NODE_PORT) -> Flows:
    return Flows(packets.PORTS4, _FIRST_PORT << 16 | port, count, _NEXT_SOURCE_PORT)


def _cases(tool: Bench, node: Node, stack: ExitStack) -> list[Early]:
    program, index = stack.enter_context(held(node.program("in_driver"))), node.index(B)
    known = _asks(HOST, NODE_PORT)
    flows = _flows(FLOWS)
    swap = tool.object("early", {}).descriptor("swap")
    return [
        _early(tool, "swap", 1, swap, known, index, flows),
        _early(tool, "known_flow", 2, program, known, index, flows),
        _early(tool, "not_ours", 2, program, _asks(BACKEND, 22), index),
    ]


def _early(
    tool: Bench,
    name: str,
    slot: int,
    program: int,
    packet: bytes,
    index: int,
    flows: Flows | None = None,
    grows: int = 0,
) -> Early:
    options = options_for(packet, flows) | {"grows": grows, "length": len(packet)}
    around_empty = tool.object("early", {**options, "slot": EMPTY})
    for place, target in ((EMPTY, around_empty.descriptor("pass_on")), (slot, program)):
        key, value = np.array([place], np.uint32), np.array([target], np.uint32)
        assert not maps.update_singly(tool.map("early_targets"), key, value)
    around = tool.object("early", {**options, "slot": slot})
    return Early(name, packet, index, around.descriptor("early"), around_empty.descriptor("early"), grows)


def _at_tc(tool: Bench, node: Node, stack: ExitStack) -> tuple[Again, Again, Again]:
    """Flows as they come in and as they leave, and as many that begin as are measured."""
    index = node.index(B)
    come, leave = (stack.enter_context(held(node.program(name))) for name in ("from_netdev", "to_netdev"))

    first = _asks(HOST, NODE_PORT, packets.SYN)
    return (
        tool.again(come, first, index, _flows(FLOWS)),
        tool.again(leave, _asks(BACKEND, PORT, packets.SYN), index, _flows(FLOWS, PORT)),
        tool.again(come, first, index, _flows(REPEAT)),
    )


def _asks(address: str, port: int, flags: int = packets.ACK) -> bytes:
    return packets.tcp(CLIENT, address, _FIRST_PORT, port, sender=B.mac, receiver=GATEWAY_MAC, flags=flags)
