"""Two workloads of two hosts talk: through vxlan, and over routes. The kernel's own vxlan and routing, without us, are
the baseline, on the same kind of wires. And net nanoseconds of the sender's program on a packet for another host.

Client and server of the request-response pairs share one CPU; bulk TCP takes all there are.
"""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from reconciler.bpf.pins import pinned_programs
from reconciler.bpf.syscalls import get, held
from reconciler.kernel import netns
from reconciler.lab.underlay import make_namespace, run_ip
from reconciler.model.datapath import GATEWAY_MAC
from tests.bench import packets
from tests.bench.again import bench
from tests.bench.bed import BPFFS, NETNS, PORT, PREFIX
from tests.bench.building import OBJECTS
from tests.bench.figures import Figure, median
from tests.bench.path import on_one_cpu
from tests.e2e.hosts import Hosts, made_hosts

ROUNDS, REQUESTS, CONNECTIONS = 5, 20_000, 3_000
BULK_ROUNDS, BULK_S = 3, 2
PACKET_ROUNDS, REPEAT = 31, 10_000
VNI = 7

_TOOL = str(OBJECTS / "request_response")


class Ends(NamedTuple):
    """Namespaces of the two workloads, and the address of the second."""

    client: str
    server: str
    address: str


def measure() -> Iterator[Figure]:
    with ExitStack() as stack:
        pairs = {name: (_ours(stack, name), stack.enter_context(_plain(name))) for name in ("vxlan", "native")}
        for name, (hosts, plain) in pairs.items():
            ours = Ends(hosts.space("a1"), hosts.space("a2"), hosts.address("a2"))
            with on_one_cpu(), _serving(ours), _serving(plain):
                yield _figure(name, "request_response", "us", _times(_asked("ask", REQUESTS), ours, plain))
                yield _figure(name, "connect", "us", _times(_asked("connect", CONNECTIONS), ours, plain))
            yield _figure(name, "bulk", "Gbit/s", _times(_bulk, ours, plain, BULK_ROUNDS))
            yield Figure(f"across.{name}.established_egress", _packet_ns(hosts), "ns")


def _ours(stack: ExitStack, name: str) -> Hosts:
    network = {"mode": "vxlan"} if name == "vxlan" else {"directRoutes": True}
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    return stack.enter_context(made_hosts(folder, network=network))


@contextmanager
def _plain(name: str) -> Iterator[Ends]:
    """Two hosts on a bridge that route for a workload each, over each other or through a vxlan device."""
    tag = f"{PREFIX}-{name}"
    spaces = {part: str(NETNS / f"{tag}-{part}") for part in ("wire", "h1", "h2", "w1", "w2")}
    try:
        for path in spaces.values():
            make_namespace(path)
        run_ip(spaces["wire"], ["link add br0 type bridge", "link set br0 up"])
        for own, other in ((1, 2), (2, 1)):
            _join(spaces, own, other, wrapped=name == "vxlan")
        yield Ends(spaces["w1"], spaces["w2"], "10.97.2.10")
    finally:
        for path in spaces.values():
            netns.remove(path)


def _join(spaces: dict[str, str], own: int, other: int, *, wrapped: bool) -> None:
    host, workload = spaces[f"h{own}"], spaces[f"w{own}"]
    mtu = 1450 if wrapped else 1500
    run_ip(spaces["wire"], [f"link add p{own} master br0 up type veth peer name eth0 netns {Path(host).name}"])
    with netns.inside(host):
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    through = [f"route add 10.97.{other}.0/24 via 10.96.0.{other}"]
    if wrapped:
        through = [
            f"link add vx0 address 02:00:00:00:01:0{own} type vxlan id {VNI} dstport 8472 "
            f"local 10.96.0.{own} remote 10.96.0.{other} nolearning",
            "link set vx0 up",
            f"address add 10.95.0.{own}/24 dev vx0",
            f"neigh add 10.95.0.{other} lladdr 02:00:00:00:01:0{other} dev vx0",
            f"route add 10.97.{other}.0/24 via 10.95.0.{other}",
        ]
    run_ip(
        host,
        [
            f"address add 10.96.0.{own}/24 dev eth0",
            "link set eth0 up",
            f"link add w mtu {mtu} type veth peer name eth0 mtu {mtu} netns {Path(workload).name}",
            "link set w up",
            f"address add 10.97.{own}.1/24 dev w",
            *through,
        ],
    )
    run_ip(
        workload,
        [
            f"address add 10.97.{own}.10/24 dev eth0",
            "link set eth0 up",
            f"route add default via 10.97.{own}.1",
        ],
    )


def _times(one: Callable[[Ends], float], ours: Ends, plain: Ends, rounds: int = ROUNDS) -> tuple[float, float]:
    found: defaultdict[Ends, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for ends in (ours, plain):
            found[ends].append(one(ends))
    return median(found[ours]), median(found[plain])


def _figure(mode: str, name: str, unit: str, values: tuple[float, float]) -> Figure:
    return Figure(f"across.{mode}.{name}", values[0], unit, values[1])


def _asked(how: str, count: int) -> Callable[[Ends], float]:
    """Median in microseconds."""
    return lambda ends: float(_run(ends.client, _TOOL, how, ends.address, str(PORT), str(count)).split()[0])


def _bulk(ends: Ends) -> float:
    """Gbit/s that arrived."""
    with _running(ends.server, "Server listening", "iperf3", "--server", "--one-off", "--port", "5201", "--forceflush"):
        said = _run(ends.client, "iperf3", "--client", ends.address, "--time", str(BULK_S), "--json")
    return float(json.loads(said)["end"]["sum_received"]["bits_per_second"]) / 1e9


def _packet_ns(hosts: Hosts) -> float:
    """The sender's program on a packet of a known flow."""
    with hosts.host(1) as host, ExitStack() as stack:
        index, mac = _device(host.listing().endpoints(), "default/a1")
        (path,) = (pin.path for pin in pinned_programs(hosts.config(1).pin_root) if pin.name == "from_workload")
        tool = stack.enter_context(bench(BPFFS / f"{PREFIX}-across", OBJECTS))
        packet = packets.tcp(hosts.address("a1"), hosts.address("a2"), 20_000, PORT, sender=mac, receiver=GATEWAY_MAC)
        again = tool.again(stack.enter_context(held(get(path))), packet, index)
        again.run(10)
        return median(again.net_ns(REPEAT) for _ in range(PACKET_ROUNDS))


def _device(endpoints: list[dict[str, object]], workload: str) -> tuple[int, str]:
    (row,) = (one for one in endpoints if one["workload"] == workload)
    return socket.if_nametoindex(str(row["device"])), str(row["mac"])


@contextmanager
def _serving(ends: Ends) -> Iterator[None]:
    with _running(ends.server, "listening", _TOOL, "serve", ends.address, str(PORT)):
        yield


@contextmanager
def _running(namespace: str, ready: str, *command: str) -> Iterator[None]:
    """Until the block ends, from when it has said that it is ready."""
    server = subprocess.Popen(["nsenter", f"--net={namespace}", *command], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        if not any(ready in line for line in server.stdout):
            raise RuntimeError(f"{command!r} ended")
        yield
    finally:
        server.kill()
        server.communicate()


def _run(namespace: str, *command: str) -> str:
    entered = ["nsenter", f"--net={namespace}", *command]
    return subprocess.run(entered, check=True, capture_output=True, text=True).stdout
