"""CPU nanoseconds a packet of a workload on its way to the outside: masqueraded by us, by nftables, and not at all.

The path of `path.py`, but for the receiver: B is somebody outside, and its device is the host's way there.
"""

from __future__ import annotations

import subprocess
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
from tests.bench.again import Bench, bench
from tests.bench.bed import BPFFS, PORT, PREFIX, A, B, Bed, Wires, made
from tests.bench.building import OBJECTS
from tests.bench.figures import Figure, median
from tests.bench.path import FRAMES, ROUNDS, Frames, Way, arrive, ending, on_one_cpu

_HOST = "10.99.0.1"
_FIRST_PORT = 20_000
_WORKLOAD_HOOKS = (("from_workload", programs.TCX_INGRESS), ("to_workload", programs.TCX_EGRESS))
_DEVICE_HOOKS = (("from_netdev", programs.TCX_INGRESS), ("to_netdev", programs.TCX_EGRESS))
_RULES = f"""
table ip filter {{
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        ip saddr {A.address4} tcp dport {PORT} accept
    }}
}}
table ip nat {{
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        oifname "{B.name}" masquerade
    }}
}}
"""


class Edge(Bed):
    """A is a workload, B the outside. `masquerades`: A leaves with the address of the device towards B."""

    def __init__(self, name: str, *, masquerades: bool) -> None:
        super().__init__(name)
        self._masquerades = masquerades

    def make(self) -> None:
        super().make()
        run_ip(self.path, [f"address add {_HOST}/32 dev {B.name}"])
        with netns.inside(self.path):
            self.tables["endpoints"].write({}, [IPv4Address(B.address4), IPv6Address(B.address6)])  # type: ignore[arg-type]
            flags = DeviceFlag.MASQUERADE4 if self._masquerades else DeviceFlag(0)
            DevicesTable(self.maps).write({B.name: DeviceRow(flags, IPv4Address(_HOST))}, ())

    def attach(self) -> None:
        self.attach_to(A, _WORKLOAD_HOOKS)
        self.attach_to(B, _DEVICE_HOOKS)


def measure() -> Iterator[Figure]:
    with ExitStack() as stack:
        tool = stack.enter_context(bench(BPFFS / f"{PREFIX}-tool", OBJECTS))
        sink = tool.object("again", {}).descriptor("sink")
        ours, open_, tables = Edge("edge", masquerades=True), Edge("open", masquerades=False), Wires("nat")
        for wires in (ours, open_, tables):
            stack.enter_context(made(wires))
            stack.enter_context(ending(sink, wires.inside(B), "eth0"))
        ours.attach()
        open_.attach()
        run_ip(tables.path, [f"address add {_HOST}/32 dev {B.name}"])
        with netns.inside(tables.path):
            subprocess.run(["nft", "-f", "-"], input=_RULES, text=True, check=True)
        stack.enter_context(on_one_cpu())
        ways = [_way(tool, "masqueraded", ours), _way(tool, "as_it_is", open_), _way(tool, "nftables", tables)]
        for _ in range(ROUNDS):
            for way in ways:
                way.times.append(arrive(tool, way, FRAMES))
    found = {way.name: median(way.times) for way in ways}
    yield Figure("outside.nftables_masquerade", found["nftables"], "ns")
    yield Figure("outside.as_it_is", found["as_it_is"], "ns")
    yield Figure("outside.masqueraded", found["masqueraded"], "ns", found["nftables"])


def _way(tool: Bench, name: str, wires: Wires) -> Way:
    packet = packets.tcp(A.address4, B.address4, _FIRST_PORT, PORT, sender=A.mac, receiver=GATEWAY_MAC)
    frames = Frames(tool, wires, A, packet)
    frames.send(10)
    return Way(name, wires, frames)
