"""Net nanoseconds a packet of the endpoint program, against one hash lookup (or one insert) on the same packet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from reconciler.bpf import maps
from reconciler.bpf.ringbuf import RingBuffer
from reconciler.bpf.syscalls import held
from reconciler.kernel import netns
from reconciler.model.datapath import GATEWAY_MAC
from tests.bench import packets
from tests.bench.again import Again, Bench, Flows, bench
from tests.bench.bed import BPFFS, GATEWAY, PORT, PREFIX, WORLD4, A, B, Bed, Side, made
from tests.bench.building import OBJECTS
from tests.bench.figures import Figure, median
from tests.bench.limits import FLOW, forget_new_flows

ROUNDS = 41
REPEAT = 10_000  # packets a measurement; as many events fit into the ring
FEW, MANY = 10, 100_000  # policy rows
_FIRST_PORT = 20_000
_NEXT_SOURCE_PORT = 1 << 16  # the two ports as one number: source port first
_DROP_EVENTS = 1  # enum event_mask


@dataclass(slots=True)
class Case:
    """Something to time; `before` brings about what each round starts from."""

    name: str
    again: Again
    baseline: str = ""
    before: Callable[[], object] = lambda: None
    times: list[float] = field(default_factory=list)


def measure() -> Iterator[Figure]:
    with ExitStack() as stack:
        tool = stack.enter_context(bench(BPFFS / f"{PREFIX}-tool", OBJECTS))
        few = stack.enter_context(made(Bed("few", FEW)))
        many = stack.enter_context(made(Bed("many", MANY)))
        cases = [*_limits(tool), *_Cases(tool, few, stack).all()]
        with_many = _Cases(tool, many, stack)
        cases += [with_many.established(f".rows_{MANY}"), with_many.new(f".rows_{MANY}")]
        for _ in range(ROUNDS):
            _time(few, cases[:-2])
            _time(many, cases[-2:])
    yield from _figures(cases)


def _time(on: Bed, cases: list[Case]) -> None:
    with netns.inside(on.path):
        for case in cases:
            case.before()
            case.times.append(case.again.net_ns(REPEAT))


def _figures(cases: list[Case]) -> Iterator[Figure]:
    found = {case.name: median(case.times) for case in cases}
    for case in cases:
        yield Figure(f"packet.{case.name}", found[case.name], "ns", found.get(case.baseline))
    by_rows = found[f"established.rows_{MANY}"] / found["established"]
    yield Figure(f"packet.established.rows_{MANY}_to_{FEW}", by_rows, "times")


def _limits(tool: Bench) -> list[Case]:
    """One packet, or the packets of 1,000 flows, looked up; each of new flows inserted."""
    limits = tool.object("limits", {})
    lookup, remember = limits.descriptor("lookup"), limits.descriptor("remember")
    packet, thousand = _packet(A, B), _flows(1000)
    keys = np.zeros(thousand.count, FLOW)
    keys["addresses"], keys["protocol"] = np.void(packet[26:34]), packets.TCP
    keys["source"], keys["destination"] = _FIRST_PORT + np.arange(thousand.count), PORT
    assert not maps.update(tool.map("known_flows"), keys, np.zeros(thousand.count, np.uint64))
    forget = partial(forget_new_flows, tool)
    return [
        Case("limit_lookup", tool.again(lookup, packet)),
        Case("limit_lookup_1000_flows", tool.again(lookup, packet, flows=thousand)),
        Case("limit_insert", tool.again(remember, packet, flows=_flows(REPEAT)), before=forget),
    ]


class _Cases:
    """What the programs of one bed are timed with."""

    def __init__(self, tool: Bench, on: Bed, stack: ExitStack) -> None:
        self._tool = tool
        self._bed = on
        self._program = stack.enter_context(held(on.program("from_workload")))
        self._ring = RingBuffer(on.maps.open("events").descriptor, lambda record: None)
        stack.callback(self._ring.close)

    def all(self) -> list[Case]:
        return [
            self.established(""),
            self._case("established_1000_flows", self._both_ways(_flows(1000)), baseline="limit_lookup_1000_flows"),
            self._case("established_ipv6", self._both_ways(six=True)),
            self._case("established_to_world", (self._again(_to_world()),)),
            self._denied("denied_with_event", _DROP_EVENTS),
            self._denied("denied", 0),
            self._case("arp", (self._again(packets.arp_request(A.address4, GATEWAY, sender=A.mac)),)),
            self.new(""),
        ]

    def established(self, suffix: str) -> Case:
        return self._case(f"established{suffix}", self._both_ways())

    def new(self, suffix: str) -> Case:
        again = self._again(_packet(A, B), _flows(REPEAT))
        return Case(f"new{suffix}", again, "limit_insert", self._bed.forget_flows)

    def _case(self, name: str, ways: tuple[Again, ...], baseline: str = "limit_lookup") -> Case:
        """The first way is timed, when each has been gone once by every flow."""
        return Case(name, ways[0], baseline, lambda: [way.run(1000) for way in ways])

    def _denied(self, name: str, events: int) -> Case:
        def before() -> None:
            self._ring.consume()
            self._bed.generation.set_events(events)

        return Case(name, self._again(_packet(A, B, port=PORT + 1)), "limit_lookup", before)

    def _both_ways(self, flows: Flows | None = None, *, six: bool = False) -> tuple[Again, Again]:
        back = Flows(flows.offset, PORT << 16 | _FIRST_PORT, flows.count) if flows else None
        return self._again(_packet(A, B, six=six), flows), self._again(_packet(B, A, six=six, reply=True), back, B)

    def _again(self, packet: bytes, flows: Flows | None = None, sender: Side = A) -> Again:
        return self._tool.again(self._program, packet, self._bed.index(sender), flows)


def _packet(source: Side, destination: Side, *, port: int = PORT, six: bool = False, reply: bool = False) -> bytes:
    addresses = (source.address6, destination.address6) if six else (source.address4, destination.address4)
    ports = (port, _FIRST_PORT) if reply else (_FIRST_PORT, port)
    return packets.tcp(*addresses, *ports, sender=source.mac, receiver=GATEWAY_MAC)


def _to_world() -> bytes:
    return packets.tcp(A.address4, WORLD4, _FIRST_PORT, PORT, sender=A.mac, receiver=GATEWAY_MAC)


def _flows(count: int) -> Flows:
    return Flows(packets.PORTS4, _FIRST_PORT << 16 | PORT, count, _NEXT_SOURCE_PORT)
