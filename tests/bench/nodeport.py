"""CPU nanoseconds a packet from outside through a node to a backend of another one: by us, and by nftables.

The path of `path.py`: A is a client outside, B a backend on another host, and the packet gets the backend's address as
its destination and the node's as its source. nftables does so by a map with `dnat` and by `masquerade`, on the same
frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address

from reconciler.bpf import programs
from reconciler.kernel import netns
from reconciler.kernel.devices import DevicesTable
from reconciler.lab.underlay import run_ip
from reconciler.model.datapath import GATEWAY_MAC
from reconciler.model.outside import DeviceFlag, DeviceRow
from tests.bench import packets
from tests.bench.again import Bench, Flows, bench
from tests.bench.bed import BPFFS, PREFIX, A, B, Bed, Side, Wires, made
from tests.bench.building import OBJECTS
from tests.bench.figures import Figure, median
from tests.bench.path import ROUNDS, Frames, Way, arrive, ending, on_one_cpu
from tests.bench.service import forget_tables, load_rules
from tests.datapath.services import OUTSIDE, Services

HOST, CLIENT, BACKEND = "10.99.0.1", "10.99.7.1", "10.99.7.7"
NODE_PORT, PORT = 30080, 8080
KNOWN, NEW = 50_000, 4_000  # frames; a quarter of the ports that flows to one backend can leave by
_FIRST_PORT, _NEXT_SOURCE_PORT = 20_000, 1 << 16
_HOOKS = (("from_netdev", programs.TCX_INGRESS), ("to_netdev", programs.TCX_EGRESS))
_RULES = f"""
table ip nat {{
    map backends {{
        type ipv4_addr . inet_service : ipv4_addr . inet_service
        elements = {{ {HOST} . {NODE_PORT} : {BACKEND} . {PORT} }}
    }}
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        dnat ip to ip daddr . tcp dport map @backends
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        oifname "{B.name}" masquerade
    }}
}}
"""


class Gate(Bed):
    """Both devices are the node's own."""

    def make(self) -> None:
        super().make()
        _settle(self)
        with netns.inside(self.path):
            gone = [
                kind(one)
                for side in (A, B)
                for kind, one in ((IPv4Address, side.address4), (IPv6Address, side.address6))
            ]
            self.tables["endpoints"].write({}, gone)  # type: ignore[arg-type]
            row = DeviceRow(DeviceFlag.SERVICES, IPv4Address(HOST))
            DevicesTable(self.maps).write({A.name: row, B.name: row}, ())
        Services(self.maps).serve(HOST, NODE_PORT, [f"{BACKEND}:{PORT}"], scope=OUTSIDE)
        for side in (A, B):
            self.attach_to(side, _HOOKS)

    def forget(self) -> None:
        self.forget_flows()
        map_ = self.maps.open("translations")
        map_.delete(map_.read()[0])

    def port(self) -> int:
        """That the one flow there is left by."""
        keys, _ = self.maps.open("translations").read()
        (port,) = (int(key["destination_port"]) for key in keys if key["reply"] and key["source_port"] == _big(PORT))
        return _big(port)


def measure() -> Iterator[Figure]:
    with ExitStack() as stack:
        tool = stack.enter_context(bench(BPFFS / f"{PREFIX}-tool", OBJECTS))
        sink = tool.object("again", {}).descriptor("sink")
        ours, tables = stack.enter_context(made(Gate("gate", serving=True))), stack.enter_context(made(Wires("dnat")))
        _settle(tables)
        load_rules(tables, _RULES)
        for wires in (ours, tables):
            stack.enter_context(ending(sink, wires.inside(B), "eth0"))
        stack.enter_context(on_one_cpu())
        for kind, count in (("known_flow", 1), ("new_flow", NEW)):
            ways = [_way(tool, wires, kind, count) for wires in (ours, tables)]
            for _ in range(ROUNDS):
                for way in ways:
                    ours.forget()
                    forget_tables(tables)
                    if count == 1:
                        _open(tool, way.wires)
                    way.times.append(arrive(tool, way, KNOWN if count == 1 else NEW))
            mine, theirs = (median(way.times) for way in ways)
            yield Figure(f"nodeport.{kind}", mine, "ns", theirs)


def _way(tool: Bench, wires: Wires, name: str, count: int) -> Way:
    flows = Flows(packets.PORTS4, _FIRST_PORT << 16 | NODE_PORT, count, _NEXT_SOURCE_PORT) if count > 1 else None
    return Way(name, wires, Frames(tool, wires, A, _asks(packets.ACK if count == 1 else packets.SYN), flows))


def _open(tool: Bench, wires: Wires) -> None:
    """The handshake of the flow whose packets are timed."""
    Frames(tool, wires, A, _asks(packets.SYN)).send(1)
    port = wires.port() if isinstance(wires, Gate) else _FIRST_PORT
    Frames(tool, wires, B, _packet(B, BACKEND, HOST, PORT, port, packets.SYN | packets.ACK)).send(1)
    Frames(tool, wires, A, _asks(packets.ACK)).send(1)


def _settle(wires: Wires) -> None:
    """The node's address, and its neighbours at both devices."""
    run_ip(
        wires.path,
        [
            f"address add {HOST}/32 dev {B.name}",
            *(f"route add {one}/32 dev {side.name}" for side, one in ((A, CLIENT), (B, BACKEND))),
            *(
                f"neigh replace {one} lladdr {side.mac} dev {side.name} nud permanent"
                for side, one in ((A, CLIENT), (B, BACKEND))
            ),
        ],
    )


def _asks(flags: int) -> bytes:
    return _packet(A, CLIENT, HOST, _FIRST_PORT, NODE_PORT, flags)


def _packet(sender: Side, source: str, to: str, sport: int, dport: int, flags: int) -> bytes:
    return packets.tcp(source, to, sport, dport, sender=sender.mac, receiver=GATEWAY_MAC, flags=flags)


def _big(port: int) -> int:
    """Between host and network order, either way."""
    return (port & 0xFF) << 8 | port >> 8
