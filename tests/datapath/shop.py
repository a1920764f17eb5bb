"""Services for clients outside, at a node device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.model.outside import DeviceFlag

from .gate import HOST, Gate, made_gate
from .harness import Harness
from .packets import SCTP, SYN, TCP, sctp, tcp, udp
from .services import OUTSIDE, Services

LOAD_BALANCER = {4: "192.0.2.80", 6: "2001:db8:2::80"}  # an address that this host does not have
ELSEWHERE = {4: "10.9.0.7", 6: "fd00:9::7"}  # a backend of another node


class Shop(Gate):
    """Services at `HOST:30080` and `LOAD_BALANCER:80`, as each test asks for them."""

    services: Services

    def open(self, version: int, *backends: str, protocol: int = TCP, sources: tuple[str, ...] = ()) -> None:
        for address, port in ((HOST[version], 30080), (LOAD_BALANCER[version], 80)):
            self.services.serve(
                address, port, [at(one, 8080) for one in backends], protocol=protocol, scope=OUTSIDE, sources=sources
            )


@contextmanager
def made_shop(datapath: Harness) -> Iterator[Shop]:
    with made_gate(datapath, DeviceFlag.SERVICES | DeviceFlag.HOST_POLICY) as gate:
        made = Shop(gate.datapath)
        made.services = Services(made.datapath.maps)
        made.services.clear()
        yield made
        made.services.clear()


def at(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def packet(protocol: int, source: str, sport: int, destination: str, dport: int, flags: int = SYN) -> bytes:
    if protocol == TCP:
        return tcp(source, sport, destination, dport, flags)
    return sctp(source, sport, destination, dport) if protocol == SCTP else udp(source, sport, destination, dport)
