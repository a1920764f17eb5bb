"""How evenly flows are spread over 100 backends: chi-square of what the programs chose.

The baseline is what 99 of 100 even spreads stay below. Flows are those of one client that counts its ports up by one
or, as Linux does, by two, and of many clients with one port; chosen by a hash of the flow (maglev), or by lot (random).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from reconciler.bpf.syscalls import held
from reconciler.kernel import netns
from reconciler.model.datapath import GATEWAY_MAC
from tests.bench import packets
from tests.bench.again import Bench, Flows, bench
from tests.bench.bed import BPFFS, PREFIX, A, made
from tests.bench.building import OBJECTS
from tests.bench.figures import Figure
from tests.bench.nodeport import Gate
from tests.datapath.services import MAGLEV, OUTSIDE, RANDOM, Services

BACKENDS, FLOWS = 100, 20_000
HOST, PORT = "10.99.0.1", 30081
CLIENT, CLIENT_PORT = "198.51.0.0", 40_000
_SOURCE = 14 + 12  # of the address in a packet
_NORMAL_99 = 2.3263  # 99% quantile of the normal distribution
_CASES = {"maglev": MAGLEV, "random": RANDOM}


@dataclass(frozen=True, slots=True)
class Keys:
    """What differs from flow to flow."""

    name: str
    flows: Flows


_KEYS = (
    Keys("ports", Flows(packets.PORTS4, 20_000 << 16 | PORT, FLOWS, 1 << 16)),
    Keys("even_ports", Flows(packets.PORTS4, 20_000 << 16 | PORT, FLOWS, 2 << 16)),
    Keys("clients", Flows(_SOURCE, int.from_bytes(bytes(map(int, CLIENT.split(".")))), FLOWS)),
)


def measure() -> Iterator[Figure]:
    even = quantile(BACKENDS - 1)
    with ExitStack() as stack:
        tool = stack.enter_context(bench(BPFFS / f"{PREFIX}-tool", OBJECTS))
        gate = stack.enter_context(made(Gate("gate", serving=True)))
        services = Services(gate.maps)
        backends = [f"10.99.8.{number}:8080" for number in range(1, BACKENDS + 1)]
        for algorithm, number in _CASES.items():
            services.serve(HOST, PORT, backends, scope=OUTSIDE, algorithm=number)
            for keys in _KEYS:
                shares = _shares(tool, gate, keys)
                yield Figure(f"spread.{algorithm}.{keys.name}", chi_square(shares), "chi-square", even)


def _shares(tool: Bench, gate: Gate, keys: Keys) -> list[int]:
    """Flows of each backend."""
    gate.forget()
    packet = packets.tcp(CLIENT, HOST, CLIENT_PORT, PORT, sender=A.mac, receiver=GATEWAY_MAC, flags=packets.SYN)
    with held(gate.program("from_netdev")) as program, netns.inside(gate.path):
        tool.again(program, packet, gate.index(A), keys.flows).run(FLOWS)
    found, values = gate.maps.open("translations").read()
    _, counts = np.unique(values["backend"][found["reply"] == 1], return_counts=True)
    assert counts.sum() == FLOWS
    return [*counts.tolist(), *[0] * (BACKENDS - len(counts))]


def chi_square(shares: list[int]) -> float:
    """Pearson's, against equal shares."""
    mean = sum(shares) / len(shares)
    return sum((share - mean) ** 2 for share in shares) / mean


def quantile(freedom: int) -> float:
    """What chi-square exceeds once in 100 times. Source: Wilson, Hilferty, "The distribution of chi-square", 1931."""
    ninth = 2 / (9 * freedom)
    return float(freedom * (1 - ninth + _NORMAL_99 * ninth**0.5) ** 3)
