"""A host's datapath with two workloads, made by the tables themselves: what packets are sent through to be timed.

bed namespace         a, b       host ends of two veth pairs, programs attached or not
bed namespace_a, _b   eth0       the workloads' ends
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from reconciler.bpf import programs, syscalls
from reconciler.bpf.syscalls import held
from reconciler.compile.routes import GATEWAY4
from reconciler.datapath.loader import Datapath
from reconciler.datapath.objects import Option
from reconciler.datapath.options import options_of
from reconciler.engine.apply import repair
from reconciler.engine.plan import diff
from reconciler.engine.rows import Columns, DictRows, Rows
from reconciler.engine.table import ColumnTable, Table
from reconciler.kernel import netns
from reconciler.kernel.bpf_maps import PinnedMaps
from reconciler.kernel.endpoints import EndpointsTable
from reconciler.kernel.generation import Generation
from reconciler.kernel.ipcache import IpcacheTable
from reconciler.kernel.policy import PolicyTable
from reconciler.lab.underlay import make_namespace, run_ip
from reconciler.model.cluster import Cluster
from reconciler.model.datapath import (
    GATEWAY_MAC,
    IPCACHE_KEY,
    IPCACHE_VALUE,
    POLICY_KEY,
    POLICY_VALUE,
    EndpointRow,
    IpcacheFlag,
    Verdict,
)
from reconciler.model.identity import Reserved
from reconciler.model.origin import Origin

PREFIX = f"pt-bench-{os.getpid()}"
NETNS = Path("/run/netns")
BPFFS = Path("/sys/fs/bpf")
WORLD4 = "198.51.100.7"
GATEWAY = str(GATEWAY4)

PORT = 80  # the one that policy allows
_OTHER_IDENTITIES = 1 << 17  # rows beyond the few that matter name peers from here on
_MAPPED = 0xFFFF << 32


class Ports(NamedTuple):
    """What a rule allows, and the same as prefixes: port and bits of each."""

    first: int
    last: int
    prefixes: tuple[tuple[int, int], ...]


SINGLE = Ports(1024, 1024, ((1024, 16),))
RANGE = Ports(8000, 8100, ((8000, 10), (8064, 11), (8096, 14), (8100, 16)))

W = TypeVar("W", bound="Wires")


@dataclass(frozen=True, slots=True)
class Side:
    """A workload: `mac` is its own end's."""

    name: str
    identity: int
    address4: str
    address6: str
    mac: str


A = Side("a", 1000, "10.99.0.2", "fd99::2", "02:00:00:00:00:0a")
B = Side("b", 1001, "10.99.0.3", "fd99::3", "02:00:00:00:00:0b")


class Wires:
    """The namespaces and their devices, without any program: a host that routes between two workloads."""

    def __init__(self, name: str) -> None:
        self.path = str(NETNS / f"{PREFIX}-{name}")

    def make(self) -> None:
        make_namespace(self.path)
        with netns.inside(self.path):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
        for side in (A, B):
            make_namespace(self.inside(side))
            _connect(self.path, self.inside(side), side)

    def remove(self) -> None:
        for path in (self.inside(A), self.inside(B), self.path):
            netns.remove(path)

    def inside(self, side: Side) -> str:
        """The workload's namespace."""
        return f"{self.path}_{side.name}"

    def index(self, side: Side) -> int:
        with netns.inside(self.path):
            return socket.if_nametoindex(side.name)


class Bed(Wires):
    """`rows`: policy rows of the two workloads together, few of which any packet here meets; `ports`: what those allow
    that do not matter, and the ones that matter too if it is not `SINGLE`; `options`: of the programs, besides those of
    a cluster that says nothing and serves nothing.
    """

    def __init__(
        self,
        name: str,
        rows: int = 10,
        map_sizes: Mapping[str, int] | None = None,
        ports: Ports = SINGLE,
        **options: Option,
    ) -> None:
        super().__init__(name)
        self.pins = BPFFS / f"{PREFIX}-{name}"
        self._rows = rows
        self._ports = ports
        cluster = Cluster("bench", Origin("", 0, "Cluster", "bench", ""))
        self._datapath = Datapath(self.pins, {**options_of(cluster), "serving": False, **options}, map_sizes)
        self.maps = PinnedMaps(self.pins)
        self.generation = Generation(self.maps)
        self.columns: dict[str, ColumnTable] = {
            "ipcache": IpcacheTable(self.maps, self.generation),
            "policy": PolicyTable(self.maps, self.generation),
        }
        self.tables: dict[str, Table] = {"endpoints": EndpointsTable(self.maps), **self.columns}
        self._links: list[int] = []

    def make(self) -> None:
        super().make()
        self._datapath.load()
        desired = {"endpoints": _endpoints(), "ipcache": _ipcache(), "policy": _policy(self._rows, self._ports)}
        with netns.inside(self.path):
            live = {name: table.live() for name, table in self.tables.items()}
            repair(diff("", "", desired, live, False), self.tables)
        self.generation.finish()
        self.generation.set_events(0)

    def remove(self) -> None:
        for link in self._links:
            os.close(link)
        super().remove()
        if self.pins.exists():
            shutil.rmtree(self.pins)

    def digest(self, program: str) -> str:
        return self._datapath.program_rows()[program].digest

    def program(self, name: str) -> int:
        """A descriptor; the caller closes it."""
        return syscalls.get(str(self.pins / "programs" / f"{name}-{self.digest(name)}"))

    def attach(self) -> None:
        """Both programs to both devices."""
        for side in (A, B):
            self.attach_to(side, (("from_workload", programs.TCX_INGRESS), ("to_workload", programs.TCX_EGRESS)))

    def attach_to(self, side: Side, hooks: Iterable[tuple[str, int]]) -> None:
        """Programs, by name, to the hooks of a device."""
        for name, hook in hooks:
            with held(self.program(name)) as program, netns.inside(self.path):
                self._links.append(programs.attach_tcx(program, socket.if_nametoindex(side.name), hook))

    def forget_flows(self) -> None:
        for name in ("conntrack4", "conntrack6", "denials4", "denials6"):
            map_ = self.maps.open(name)
            map_.delete(map_.read()[0])


@contextmanager
def made(wires: W) -> Iterator[W]:
    """Made, and removed in the end, whatever there is of it."""
    try:
        wires.make()
        yield wires
    finally:
        wires.remove()


def _connect(host: str, workload: str, side: Side) -> None:
    """A veth pair from one namespace to the other, with addresses and routes as a workload of ours has them."""
    run_ip(
        host,
        [
            f"link add name {side.name} address {GATEWAY_MAC} type veth peer name eth0 address {side.mac} "
            f"netns {Path(workload).name}",
            f"link set dev {side.name} up",
            f"route add {side.address4}/32 dev {side.name}",
            f"route add {side.address6}/128 dev {side.name}",
            f"neigh replace {side.address4} lladdr {side.mac} dev {side.name} nud permanent",
            f"neigh replace {side.address6} lladdr {side.mac} dev {side.name} nud permanent",
        ],
    )
    run_ip(
        workload,
        [
            f"address add {side.address4}/32 dev eth0",
            f"address add {side.address6}/128 dev eth0 nodad",
            "link set eth0 up",
            f"route add {GATEWAY} dev eth0",
            f"route add default via {GATEWAY} dev eth0",
            f"neigh replace {GATEWAY} lladdr {GATEWAY_MAC} dev eth0 nud permanent",
        ],
    )


def _endpoints() -> DictRows:
    rows: dict[object, EndpointRow] = {}
    for side in (A, B):
        rows[IPv4Address(side.address4)] = EndpointRow(side.name, side.mac)
        rows[IPv6Address(side.address6)] = EndpointRow(side.name, side.mac)
    return DictRows(rows)


def _ipcache() -> Rows:
    rows: list[tuple[int, ...]] = [(0, _MAPPED, 96, Reserved.WORLD_IPV4, 0), (0, 0, 0, Reserved.WORLD_IPV6, 0)]
    for side in (A, B):
        six = int(IPv6Address(side.address6))
        rows.append((0, _MAPPED | int(IPv4Address(side.address4)), 128, side.identity, IpcacheFlag.LOCAL))
        rows.append((six >> 64, six & (1 << 64) - 1, 128, side.identity, IpcacheFlag.LOCAL))
    keys, values = np.zeros(len(rows), IPCACHE_KEY), np.zeros(len(rows), IPCACHE_VALUE)
    for name, column in zip(("high", "low", "bits"), zip(*rows, strict=True), strict=False):
        keys[name] = column
    values["identity"], values["flags"] = [row[3] for row in rows], [row[4] for row in rows]
    return Columns(keys, values)


def _policy(rows: int, ports: Ports) -> Rows:
    """Each workload isolated both ways; the other allowed on `PORT` and by ping, the world outwards; and others."""
    here = Ports(PORT, PORT, ((PORT, 16),)) if ports is SINGLE else ports
    parts: list[tuple[int, int, int, int, int, int, int]] = []  # as the fields below, and the verdict
    for me, other in ((A, B), (B, A)):
        for egress in (0, 1):
            parts.append((me.identity, 0, egress, 0, 0, 0, Verdict.DEFAULT_DENY))
            for port, bits in here.prefixes:
                parts.append((me.identity, other.identity, egress, socket.IPPROTO_TCP, port, bits, Verdict.ALLOW))
            parts.append((me.identity, other.identity, egress, socket.IPPROTO_ICMP, 0, 0, Verdict.ALLOW))
        parts.append((me.identity, Reserved.WORLD_IPV4, 1, socket.IPPROTO_TCP, PORT, 16, Verdict.ALLOW))
    few = len(parts)
    more = max(0, rows - few)
    keys, values = np.zeros(few + more, POLICY_KEY), np.zeros(few + more, POLICY_VALUE)
    for index, field in enumerate(("subject", "peer", "egress", "protocol", "port", "port_bits")):
        keys[field][:few] = [part[index] for part in parts]
    values["verdict"][:few] = [part[6] for part in parts]
    each = np.array(ports.prefixes)  # of every rule; a peer has four: of either workload, in either direction
    number = np.arange(more)
    rule = number // len(each)
    keys["subject"][few:] = np.where(rule % 2, A.identity, B.identity)
    keys["peer"][few:] = _OTHER_IDENTITIES + rule // 4
    keys["egress"][few:] = rule // 2 % 2
    keys["protocol"][few:] = socket.IPPROTO_TCP
    keys["port"][few:], keys["port_bits"][few:] = each[number % len(each)].T
    values["verdict"][few:] = Verdict.ALLOW
    values["cookie"] = np.arange(1, len(values) + 1)
    return Columns(keys, values)
