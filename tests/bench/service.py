"""Services: what translating a packet costs, and how connections to three backends fare: at the socket, by packet, by
nftables, and without a service.
"""

from __future__ import annotations

import socket
import struct
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.bpf.syscalls import held
from reconciler.kernel import netns
from reconciler.kernel.cgroups import CgroupsTable, cgroup_mount
from reconciler.model.datapath import GATEWAY_MAC, AttachmentRow, CgroupKey, SocketHook
from tests.bench import packets
from tests.bench.again import Again, Bench, Flows, bench
from tests.bench.bed import BPFFS, PORT, PREFIX, RANGE, A, B, Bed, Side, Wires, made
from tests.bench.building import OBJECTS
from tests.bench.figures import Figure, median
from tests.bench.packet import REPEAT
from tests.bench.path import FRAMES, ROUNDS, Frames, Way, arrive, ending, on_one_cpu
from tests.bench.wire import CONNECTIONS, REQUESTS, serving
from tests.datapath.services import Services

VIP, VIP_PORT = "10.96.0.1", 8080
SERVICE = f"{VIP}:{VIP_PORT}"
SERVERS = (8001, 8002, 8003)
CGROUP = f"{PREFIX}-service"
_NETLINK_NETFILTER = 12
_FIRST_PORT, _NEXT_SOURCE_PORT = 20_000, 1 << 16
_LOOKUP_ROUNDS, _WIRE_ROUNDS = 41, 7
_TOOL = str(OBJECTS / "request_response")
_MAPS = ("service_flows4", "affinities")


def _rules(target: str) -> str:
    return f"""
table ip nat {{
    map backends {{
        type ipv4_addr . inet_service : ipv4_addr . inet_service
        elements = {{ {VIP} . {VIP_PORT} : {B.address4} . {PORT} }}
    }}
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        {target}
    }}
}}
table ip filter {{
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        ip saddr {A.address4} ip daddr {B.address4} accept
    }}
}}
"""


_ONE = "dnat ip to ip daddr . tcp dport map @backends"
_MANY = ", ".join(f"{place} : {B.address4} . {port}" for place, port in enumerate(SERVERS))
_THREE = f"ip daddr {VIP} tcp dport {VIP_PORT} dnat ip to numgen random mod {len(SERVERS)} map {{ {_MANY} }}"


@dataclass(slots=True)
class _Case:
    name: str
    bed: Bed
    again: Again
    before: Callable[[], object]
    times: list[float] = field(default_factory=list)


def measure() -> Iterator[Figure]:
    yield from _translation()
    yield from _paths()
    yield from _connections()


def _translation() -> Iterator[Figure]:
    """Test runs of `from_workload`."""
    with ExitStack() as stack:
        tool = stack.enter_context(bench(BPFFS / f"{PREFIX}-tool", OBJECTS))
        with_services = stack.enter_context(made(Bed("services", serving=True)))
        without = stack.enter_context(made(Bed("none")))
        Services(with_services.maps).serve(VIP, VIP_PORT, [f"{B.address4}:{PORT}"])
        cases = [*_cases(tool, with_services, stack), *_others(tool, without, stack, "")]
        for _ in range(_LOOKUP_ROUNDS):
            for case in cases:
                with netns.inside(case.bed.path):
                    case.before()
                    case.times.append(case.again.net_ns(REPEAT))
    found = {case.name: median(case.times) for case in cases}
    yield Figure("service.established", found["established"], "ns", found["other_established"])
    yield Figure("service.established_1000_flows", found["established_1000_flows"], "ns")
    yield Figure("service.answer", found["answer"], "ns", found["other_established"])
    yield Figure("service.new", found["new"], "ns", found["other_new"])
    for name in ("other_established", "other_new", "other_denied"):
        yield Figure(f"service.{name}", found[f"{name}_serving"], "ns", found[name])


def _cases(tool: Bench, bed: Bed, stack: ExitStack) -> list[_Case]:
    program = stack.enter_context(held(bed.program("from_workload")))

    def again(packet: bytes, flows: Flows | None = None, sender: Side = A) -> Again:
        return tool.again(program, packet, bed.index(sender), flows)

    back = again(_packet(B, A.address4, PORT, _FIRST_PORT), sender=B)
    there = again(_asks())
    thousand = again(_asks(), _flows(1000, VIP_PORT))
    thousand_back = again(
        _packet(B, A.address4, PORT, _FIRST_PORT), Flows(packets.PORTS4, PORT << 16 | _FIRST_PORT, 1000), B
    )
    return [
        _Case("established", bed, there, lambda: (there.run(1000), back.run(1000))),
        _Case("established_1000_flows", bed, thousand, lambda: (thousand.run(1000), thousand_back.run(1000))),
        _Case("answer", bed, back, lambda: (there.run(1000), back.run(1000))),
        _Case("new", bed, again(_asks(), _flows(REPEAT, VIP_PORT)), lambda: _forget(bed)),
        *_others(tool, bed, stack, "_serving"),
    ]


def _others(tool: Bench, bed: Bed, stack: ExitStack, suffix: str) -> list[_Case]:
    """Packets of no service."""
    program, index = stack.enter_context(held(bed.program("from_workload"))), bed.index(A)
    there = tool.again(program, _packet(A, B.address4, _FIRST_PORT, PORT), index)
    back = tool.again(program, _packet(B, A.address4, PORT, _FIRST_PORT), bed.index(B))
    fresh = tool.again(program, _packet(A, B.address4, _FIRST_PORT, PORT), index, _flows(REPEAT, PORT))
    denied = tool.again(program, _packet(A, B.address4, _FIRST_PORT, PORT + 1), index)
    return [
        _Case(f"other_established{suffix}", bed, there, lambda: (there.run(1000), back.run(1000))),
        _Case(f"other_new{suffix}", bed, fresh, lambda: _forget(bed)),
        _Case(f"other_denied{suffix}", bed, denied, lambda: denied.run(10)),
    ]


def _paths() -> Iterator[Figure]:
    """CPU of the whole path from A to the backend at B; the receiver sees B's address."""
    with ExitStack() as stack:
        tool = stack.enter_context(bench(BPFFS / f"{PREFIX}-tool", OBJECTS))
        sink = tool.object("again", {}).descriptor("sink")
        ours, tables = Bed("path", serving=True), Wires("dnat")
        for wires in (ours, tables):
            stack.enter_context(made(wires))
            stack.enter_context(ending(sink, wires.inside(B), "eth0"))
        ours.attach()
        Services(ours.maps).serve(VIP, VIP_PORT, [f"{B.address4}:{PORT}"])
        load_rules(tables, _rules(_ONE))
        stack.enter_context(on_one_cpu())
        ways = [
            (_way(tool, wires, f"{kind}_{name}", count), _Opening(tool, wires) if count == 1 else None)
            for name, wires in (("ours", ours), ("nftables", tables))
            for kind, count in (("established", 1), ("new", FRAMES))
        ]
        for _ in range(ROUNDS):
            for way, opening in ways:
                _forget(ours)
                forget_tables(tables)
                if opening:
                    opening.send()
                way.times.append(arrive(tool, way, FRAMES))
    found = {way.name: median(way.times) for way, _ in ways}
    for kind in ("established", "new"):
        yield Figure(f"service.path_{kind}", found[f"{kind}_ours"], "ns", found[f"{kind}_nftables"])


def _way(tool: Bench, wires: Wires, name: str, count: int) -> Way:
    flags = packets.ACK if count == 1 else packets.SYN
    return Way(name, wires, Frames(tool, wires, A, _asks(flags), _flows(count, VIP_PORT) if count > 1 else None))


class _Opening:
    """The handshake of the flow whose packets are timed."""

    def __init__(self, tool: Bench, wires: Wires) -> None:
        answer = _packet(B, A.address4, PORT, _FIRST_PORT, packets.SYN | packets.ACK)
        self._frames = (
            Frames(tool, wires, A, _asks(packets.SYN)),
            Frames(tool, wires, B, answer),
            Frames(tool, wires, A, _asks()),
        )

    def send(self) -> None:
        for frames in self._frames:
            frames.send(1)


def _connections() -> Iterator[Figure]:
    """A connection made, used and closed; and a request on one that is there."""
    with ExitStack() as stack:
        ours, tables = Bed("socket", ports=RANGE, serving=True), Wires("many")
        for wires in (ours, tables):
            stack.enter_context(made(wires))
            for port in SERVERS:
                stack.enter_context(serving(wires, port))
        ours.attach()
        Services(ours.maps).serve(VIP, VIP_PORT, [f"{B.address4}:{port}" for port in SERVERS])
        load_rules(tables, _rules(_THREE))
        stack.enter_context(on_one_cpu())
        stack.enter_context(_cgroup(ours))
        service, direct = (VIP, VIP_PORT), (B.address4, SERVERS[0])
        ways = {
            "socket": (ours, service, CGROUP),
            "packet": (ours, service, ""),
            "nftables": (tables, service, ""),
            "direct": (ours, direct, ""),
        }
        for how, count in (("connect", CONNECTIONS), ("ask", REQUESTS)):
            found: defaultdict[str, list[float]] = defaultdict(list)
            for _ in range(_WIRE_ROUNDS):
                for name, (wires, where, cgroup) in ways.items():
                    found[name].append(_asked(wires, how, where, count, cgroup))
            base = median(found.pop("direct"))
            for name, times in found.items():
                yield Figure(f"service.{how}_{name}", median(times), "us", base)


def _asked(wires: Wires, how: str, where: tuple[str, int], count: int, cgroup: str) -> float:
    """Median in microseconds."""
    enter = f"echo $$ > {cgroup_mount() / cgroup / 'cgroup.procs'} && " if cgroup else ""
    command = f"{enter}exec nsenter --net={wires.inside(A)} {_TOOL} {how} {where[0]} {where[1]} {count}"
    done = subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[0])


@contextmanager
def _cgroup(bed: Bed) -> Iterator[None]:
    """The cgroup, with the programs on its hooks."""
    table, folder = CgroupsTable(bed.pins), cgroup_mount() / CGROUP
    folder.mkdir()
    rows = {
        CgroupKey(CGROUP, hook): AttachmentRow(f"socket_{hook}", bed.digest(f"socket_{hook}")) for hook in SocketHook
    }
    table.write(rows, ())
    try:
        yield
    finally:
        table.write({}, list(rows))
        folder.rmdir()


def load_rules(wires: Wires, rules: str) -> None:
    """The packets here have no right sequence numbers, and those of many flows no right checksums."""
    with netns.inside(wires.path):
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
        Path("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal").write_text("1")
        Path("/proc/sys/net/netfilter/nf_conntrack_checksum").write_text("0")


def _forget(bed: Bed) -> None:
    bed.forget_flows()
    for name in _MAPS:
        map_ = bed.maps.open(name)
        map_.delete(map_.read()[0])


def forget_tables(wires: Wires) -> None:
    """IPCTNL_MSG_CT_DELETE without a tuple: all of them (linux/netfilter/nfnetlink_conntrack.h)."""
    message = struct.pack("=IHHIIBBH", 20, 1 << 8 | 2, 0x5, 1, 0, socket.AF_INET, 0, 0)
    with netns.inside(wires.path), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.sendto(message, (0, 0))
        (error,) = struct.unpack_from("=i", netlink.recv(1 << 12), 16)
    if error:
        raise OSError(-error, "forgetting the flows of nftables")


def _asks(flags: int = packets.ACK) -> bytes:
    return _packet(A, VIP, _FIRST_PORT, VIP_PORT, flags)


def _packet(sender: Side, to: str, sport: int, dport: int, flags: int = packets.ACK) -> bytes:
    return packets.tcp(sender.address4, to, sport, dport, sender=sender.mac, receiver=GATEWAY_MAC, flags=flags)


def _flows(count: int, port: int) -> Flows:
    return Flows(packets.PORTS4, _FIRST_PORT << 16 | port, count, _NEXT_SOURCE_PORT)
