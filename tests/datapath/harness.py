"""A loaded datapath to try packets on: its tables, three workloads with real devices, and test runs.

datapath.become(endpoints=..., ipcache=..., policy=...)    the whole state, written as the engine writes it
datapath.run(packet, workload.ifindex, Hook.INGRESS)  what the program does with a packet
datapath.events()                                          what the programs told
"""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reconciler.bpf import btf, programs, syscalls
from reconciler.bpf.pins import program_path
from reconciler.bpf.ringbuf import RingBuffer
from reconciler.datapath.loader import Datapath
from reconciler.engine.diff import diff_rows
from reconciler.engine.rows import Columns, DictRows, Rows
from reconciler.engine.transaction import write
from reconciler.kernel.bpf_maps import PinnedMaps
from reconciler.kernel.endpoints import EndpointsTable
from reconciler.kernel.generation import Generation
from reconciler.kernel.ipcache import IpcacheTable
from reconciler.kernel.policy import PolicyTable
from reconciler.kernel.tunnels import TunnelsTable
from reconciler.model.datapath import (
    IPCACHE_KEY,
    IPCACHE_VALUE,
    POLICY_KEY,
    POLICY_VALUE,
    EndpointRow,
    Hook,
    IpcacheFlag,
    TunnelRow,
    Verdict,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

DEADLINE_S = 10.0
UNSPEC, OK, SHOT, REDIRECT = -1, 0, 2, 7  # TC_ACT_*
ROWS = ("endpoints4", "endpoints6", "tunnels4", "tunnels6", "ipcache4", "ipcache6", "cidr4", "cidr6", "policy")
FLOWS = ("conntrack4", "conntrack6", "denials4", "denials6", "fragments4", "fragments6")
PROGRAMS = {Hook.INGRESS: "from_workload", Hook.EGRESS: "to_workload"}
OF_NODES = ("from_netdev", "to_netdev", "from_overlay", "to_overlay", "at_device")


@dataclass(frozen=True, slots=True)
class Device:
    """A workload's host end, and what the workload is called by."""

    ifname: str
    ifindex: int
    mac: str
    address4: IPv4Address
    address6: IPv6Address
    identity: int


class Ran(NamedTuple):
    action: int
    packet: bytes


@dataclass(frozen=True, slots=True)
class Allow:
    """A policy row in few words; `verdict` and the rest may make it something else."""

    subject: int
    peer: int = 0
    egress: bool = False
    protocol: int = 0
    port: int = 0
    port_bits: int = 16
    verdict: Verdict = Verdict.ALLOW
    flags: int = 0  # PolicyFlag
    cookie: int = 1
    proxy_port: int = 0


def eventually(condition: Callable[[], object]) -> None:
    """For what the kernel does in its own time, such as freeing."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"


def policy_rows(rows: Iterable[Allow]) -> Columns:
    every = list(rows)
    keys, values = np.zeros(len(every), POLICY_KEY), np.zeros(len(every), POLICY_VALUE)
    for key, value, row in zip(keys, values, every, strict=True):
        key["subject"], key["peer"], key["egress"], key["protocol"] = row.subject, row.peer, row.egress, row.protocol
        key["port"], key["port_bits"] = row.port, row.port_bits if row.port else 0
        value["verdict"], value["flags"], value["cookie"] = row.verdict, row.flags, row.cookie
        value["proxy_port"] = row.proxy_port
    return Columns(keys, values)


def ipcache_rows(rows: Mapping[Network | Address, tuple[int, int]]) -> Columns:
    """From address or network to identity and flags."""
    keys, values = np.zeros(len(rows), IPCACHE_KEY), np.zeros(len(rows), IPCACHE_VALUE)
    for key, value, (where, what) in zip(keys, values, rows.items(), strict=True):
        network = where if isinstance(where, (IPv4Network, IPv6Network)) else None
        address = network.network_address if network else where
        number = int(address) | (0xFFFF << 32 if address.version == 4 else 0)
        length = network.prefixlen if network else address.max_prefixlen
        key["high"], key["low"] = number >> 64, number & (1 << 64) - 1
        key["bits"] = length + (96 if address.version == 4 else 0)
        value["identity"], value["flags"] = what
    return Columns(keys, values)


@contextmanager
def loaded_at(
    root: Path, devices: tuple[Device, ...], options: Mapping[str, Any], sizes: Mapping[str, int] | None = None
) -> Iterator[Harness]:
    """Nothing is left at the pin root after the block, nor where a program was refused and there is no block.

    `sizes`: entries of maps, as far as they are not what the programs say.
    """
    try:
        harness = Harness(root, devices, options, sizes or {})
        try:
            yield harness
        finally:
            harness.close()
    finally:
        shutil.rmtree(root, ignore_errors=True)


class Harness:
    """Made once, by `loaded_at`; `reset` makes it as new."""

    def __init__(
        self, root: Path, devices: tuple[Device, ...], options: Mapping[str, Any], sizes: Mapping[str, int]
    ) -> None:
        self.root = root
        self.devices = devices
        self.gso_size = 0  # of the packets that are tried: data in each segment, 0: they are not segmented
        self.summed = False  # a device has added them up, and its sum must be right after the program too
        self.datapath = Datapath(root, options, sizes)
        self.datapath.load()
        self.maps = PinnedMaps(root)
        self.generation = Generation(self.maps)
        self.endpoints = EndpointsTable(self.maps)
        self.tunnels = TunnelsTable(self.maps)
        self.ipcache = IpcacheTable(self.maps, self.generation)
        self.policy = PolicyTable(self.maps, self.generation)
        self.tables = {table.name: table for table in (self.endpoints, self.tunnels, self.ipcache, self.policy)}
        rows = self.datapath.program_rows()
        self.by_name = {
            name: syscalls.get(program_path(root, name, rows[name].digest)) for name in (*PROGRAMS.values(), *OF_NODES)
        }
        self.programs = {direction: self.by_name[name] for direction, name in PROGRAMS.items()}
        self._records: list[bytes] = []
        self._ring = RingBuffer(self.maps.open("events").descriptor, self._records.append)

    def close(self) -> None:
        self.generation.finish()
        self._ring.close()
        for descriptor in self.by_name.values():
            os.close(descriptor)

    def reset(self) -> None:
        """No rows, no flows, no events, epoch 0, all events on."""
        self.generation.finish()
        for name in ROWS + FLOWS:
            map_ = self.maps.open(name)
            map_.delete(map_.read()[0])
        state = self.maps.open("state")
        state.update(np.zeros(1, np.uint32), np.zeros(1, state.value_dtype))
        self.generation.set_events(3)
        self.events()

    def become(
        self,
        *,
        endpoints: Mapping[Address, EndpointRow] | None = None,
        tunnels: Mapping[Network, TunnelRow] | None = None,
        ipcache: Mapping[Network | Address, tuple[int, int]] | None = None,
        policy: Iterable[Allow] | None = None,
    ) -> None:
        """Make each table that is given hold exactly this, in one transaction."""
        wanted: dict[str, Rows] = {}
        if endpoints is not None:
            wanted["endpoints"] = DictRows(endpoints)
        if tunnels is not None:
            wanted["tunnels"] = DictRows(tunnels)
        if ipcache is not None:
            wanted["ipcache"] = ipcache_rows(ipcache)
        if policy is not None:
            wanted["policy"] = policy_rows(policy)
        deltas = [diff_rows(name, rows, self.tables[name].live(), complete=True) for name, rows in wanted.items()]
        write([delta for delta in deltas if delta], self.tables)

    def become_usual(self, policy: Iterable[Allow] = (), audited: Collection[Device] = ()) -> None:
        """Every device's workload is known with its identity; the world is 2, this host 10.0.0.1 and fd00::1.

        `audited`: those in audit mode.
        """
        endpoints: dict[Address, EndpointRow] = {}
        ipcache: dict[Network | Address, tuple[int, int]] = {
            IPv4Network("0.0.0.0/0"): (2, 0),
            IPv6Network("::/0"): (2, 0),
            IPv4Address("10.0.0.1"): (1, IpcacheFlag.HOST),
            IPv6Address("fd00::1"): (1, IpcacheFlag.HOST),
        }
        for device in self.devices:
            for address in (device.address4, device.address6):
                endpoints[address] = EndpointRow(device.ifname, device.mac)
                mode = IpcacheFlag.AUDIT if device in audited else IpcacheFlag(0)
                ipcache[address] = device.identity, IpcacheFlag.LOCAL | mode
        self.become(endpoints=endpoints, ipcache=ipcache, policy=policy)

    def run(self, packet: bytes, ifindex: int, direction: Hook, *, ingress_ifindex: int = 0, mark: int = 0) -> Ran:
        """What the program of this direction answers (TC_ACT_*), and the packet as it leaves it."""
        return self.try_on(self.programs[direction], packet, ifindex, ingress_ifindex, mark)

    def try_on(self, program: int, packet: bytes, ifindex: int, ingress_ifindex: int = 0, mark: int = 0) -> Ran:
        """The same of any program, one of `by_name`."""
        context = bytearray(192)  # struct __sk_buff
        layout = self._sk_buff().fields
        assert layout is not None
        struct.pack_into("=I", context, layout["ifindex"][1], ifindex)
        struct.pack_into("=I", context, layout["ingress_ifindex"][1], ingress_ifindex)
        struct.pack_into("=I", context, layout["mark"][1], mark)
        struct.pack_into("=I", context, layout["gso_size"][1], self.gso_size)
        ran = programs.run(program, packet, bytes(context), summed=self.summed)
        return Ran(ctypes.c_int32(ran.result).value, ran.packet)

    def sent(self, packet: bytes, device: Device) -> Ran:
        """The workload sends it."""
        return self.run(packet, device.ifindex, Hook.INGRESS)

    def received(self, packet: bytes, device: Device, *, ingress_ifindex: int = 0, mark: int = 0) -> Ran:
        """It is on its way to the workload, from `ingress_ifindex` or, if that is 0, from the host itself."""
        return self.run(packet, device.ifindex, Hook.EGRESS, ingress_ifindex=ingress_ifindex, mark=mark)

    def events(self) -> np.ndarray[Any, Any]:
        """Since the last call: records of `struct event`."""
        self._records.clear()
        self._ring.consume()
        dtype = btf.of_file(self.datapath.folder / "flow_layout.bpf.o").struct("event")
        return np.frombuffer(b"".join(self._records), dtype)

    def _sk_buff(self) -> np.dtype[Any]:
        return btf.of_file(self.datapath.folder / "endpoint.bpf.o").struct("__sk_buff")
