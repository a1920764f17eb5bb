"""What judging costs as rules grow, single ports and ranges: CPU nanoseconds a packet against nftables.

The whole path as in `path`, but every packet opens a flow: it is looked up in the rules, and conntrack remembers it, on
either side. nftables has the same rules on the same packets: a verdict map, with intervals where there are ranges.
"""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path

from reconciler.bpf.syscalls import held
from reconciler.kernel import netns, subjects
from reconciler.model.datapath import GATEWAY_MAC
from tests.bench import packets
from tests.bench.again import Bench, Flows, bench
from tests.bench.bed import BPFFS, PORT, PREFIX, RANGE, SINGLE, A, B, Bed, Ports, Wires, made
from tests.bench.building import OBJECTS
from tests.bench.figures import Figure, median
from tests.bench.path import Frames, Way, arrive, ending, on_one_cpu

ROWS = (10, 1_000, 100_000)
FLOWS = 5_000
ROUNDS = 21
_PEERS = int(IPv4Address("100.64.0.0"))  # of nftables' rules: one address where we have one identity
_FIRST_PORT = 20_000
_NETLINK_NETFILTER = 12
_NEXT_SOURCE_PORT = 1 << 16  # the two ports as one number: source port first
_FLUSH = struct.pack("=IHHIIBBH", 20, 1 << 8 | 2, 5, 1, 0, 0, 0, 0)  # nfnetlink_conntrack.h: IPCTNL_MSG_CT_DELETE


def measure() -> Iterator[Figure]:
    with ExitStack() as stack:
        tool = stack.enter_context(bench(BPFFS / f"{PREFIX}-tool", OBJECTS))
        sink = tool.object("again", {}).descriptor("sink")
        stack.enter_context(on_one_cpu())
        for name, ports in (("ports", SINGLE), ("ranges", RANGE)):
            for rows in ROWS:
                yield from _measured(tool, sink, f"lookup.{name}.rows_{rows}", rows, ports)


def _measured(tool: Bench, sink: int, name: str, rows: int, ports: Ports) -> Iterator[Figure]:
    with ExitStack() as stack:
        ours = stack.enter_context(made(Bed("rules", rows, ports=ports)))
        tables = stack.enter_context(made(Wires("nftables")))
        for wires in (ours, tables):
            stack.enter_context(ending(sink, wires.inside(B), "eth0"))
        ours.attach()
        with netns.inside(tables.path):
            subprocess.run(["nft", "-f", "-"], input=_rules(rows, ports), text=True, check=True)
        port = PORT if ports is SINGLE else (ports.first + ports.last) // 2
        ways = [_way(tool, "ours", ours, port), _way(tool, "nftables", tables, port)]
        for _ in range(ROUNDS):
            ours.forget_flows()
            with netns.inside(tables.path):
                _forget_flows()
            for way in ways:
                way.times.append(arrive(tool, way, FLOWS))
        yield Figure(name, median(ways[0].times), "ns", median(ways[1].times))
        yield Figure(f"{name}.kilobytes", _trie_bytes(ours) / 1000, "kB")


def _way(tool: Bench, name: str, wires: Wires, port: int) -> Way:
    packet = packets.tcp(A.address4, B.address4, _FIRST_PORT, port, sender=A.mac, receiver=GATEWAY_MAC)
    flows = Flows(packets.PORTS4, _FIRST_PORT << 16 | port, FLOWS, _NEXT_SOURCE_PORT)
    return Way(name, wires, Frames(tool, wires, A, packet, flows))


def _rules(rows: int, ports: Ports) -> str:
    """As many as make up those rows, to and from other addresses, and the one that is met."""
    count = rows // len(ports.prefixes)
    span = f"{ports.first}" if ports.first == ports.last else f"{ports.first}-{ports.last}"
    met = f"{PORT}" if ports is SINGLE else span
    elements = [f"{A.address4} . {B.address4} . {met} : accept"]
    for number in range(count):
        ends = [(A, B)[number % 2].address4, str(IPv4Address(_PEERS + number // 4))]
        source, destination = ends if number // 2 % 2 else ends[::-1]
        elements.append(f"{source} . {destination} . {span} : accept")
    return f"""
table ip filter {{
    map allowed {{
        type ipv4_addr . ipv4_addr . inet_service : verdict
        {"flags interval" if ports.first != ports.last else ""}
        elements = {{ {", ".join(elements)} }}
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        ip saddr . ip daddr . tcp dport vmap @allowed
    }}
}}
"""


def _forget_flows() -> None:
    """All of conntrack's, in this namespace."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.send(_FLUSH)
        (error,) = struct.unpack_from("=i", netlink.recv(4096), 16)
        assert not error, f"flushing conntrack: {error}"


def _trie_bytes(on: Bed) -> int:
    """Of all policy rows, as the kernel counts them."""
    _, tries = on.maps.open("policy").read()
    total = 0
    for descriptor in subjects.open_rows(tries.tolist()):
        with held(descriptor):
            lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("memlock:"))
    return total
