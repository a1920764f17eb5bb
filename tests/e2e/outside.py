"""A host between workloads and an outside that knows no way to workloads: real sockets on each side of it."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reconciler.host import Host
from reconciler.kernel.netns import inside
from reconciler.lab.underlay import run_ip
from tests.e2e.daemon_host import CIDR4, CIDR6, NAMESPACE, DaemonHost, cluster, made_host, make_namespace, node, until

HOST = {4: "192.0.2.1", 6: "2001:db8::1"}
OUTSIDE = {4: "192.0.2.9", 6: "2001:db8::9"}
KNOWN = {4: "198.51.100.9", 6: "2001:db8:1::9"}  # of the outside too; from there workloads can be reached
TIMEOUT_S = 1.0
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class Edge:
    """`made` as daemon_host.py makes it, without a daemon; `host` is at its newest commit."""

    def __init__(self, made: DaemonHost, host: Host) -> None:
        self.made = made
        self.host = host
        self.outside = made.inside("outside")
        self.places = {"host": made.path, "outside": self.outside, **{one: made.inside(one) for one in made.workloads}}

    def become(self, *policies: dict[str, Any], masquerade: dict[str, Any] | None = None) -> None:
        """A commit with these policies for nodes (CiliumClusterwideNetworkPolicy) only."""
        self.made.write("cluster.yaml", cluster(**({"masquerade": masquerade} if masquerade else {})))
        self.made.write("policies/nodes.yaml", "".join(map(_policy, policies)) or "# none\n")
        self.host.converge(self.made.commit())

    def address(self, workload: str, version: int) -> str:
        found = next(one for one in self.host.listing().endpoints() if one["workload"] == f"default/{workload}")
        return next(str(one) for one in found["addresses"] if (":" in one) is (version == 6))

    @contextmanager
    def socket(self, place: str, version: int, kind: int, port: int = 0, address: str = "") -> Iterator[socket.socket]:
        with inside(self.places[place]):
            opened = socket.socket(FAMILIES[version], kind)
        with opened:
            opened.settimeout(TIMEOUT_S)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if version == 6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.bind((address, port))
            yield opened

    @contextmanager
    def way_back(self, version: int) -> Iterator[None]:
        """While the block runs, the outside knows the way to workloads."""
        cidr = CIDR4 if version == 4 else CIDR6
        run_ip(self.outside, [f"route add {cidr} via {HOST[version]} dev eth0"])
        yield
        run_ip(self.outside, [f"route del {cidr}"])

    def reaches(self, place: str, target: str, address: str, port: int, source: str = "") -> tuple[str, int] | None:
        """Whom `target` sees when `place` opens a TCP connection to it and both have said something; None: nobody."""
        version = 6 if ":" in address else 4
        with (
            self.socket(target, version, socket.SOCK_STREAM, port) as server,
            self.socket(place, version, socket.SOCK_STREAM, address=source) as client,
        ):
            server.listen()
            try:
                client.connect((address, port))
                accepted, seen = server.accept()
                with accepted:
                    accepted.settimeout(TIMEOUT_S)
                    client.sendall(b"there")
                    accepted.sendall(b"back" if accepted.recv(8) == b"there" else b"?")
                    return (seen[0], seen[1]) if client.recv(8) == b"back" else None
            except OSError:
                return None

    def ping(self, place: str, address: str, size: int = 56) -> bool:
        command = ("ping", "-c1", "-W1", f"-s{size}", address)
        with inside(self.places[place]):
            return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _policy(spec: dict[str, Any]) -> str:
    name = spec.pop("name", "nodes")
    document = {"apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy"}
    metadata: dict[str, Any] = {"name": name}
    if spec.pop("audit", False):
        metadata["annotations"] = {"plumbline/audit": "true"}
    return f"---\n{json.dumps({**document, 'metadata': metadata, 'spec': {'nodeSelector': {}, **spec}})}\n"


def ports(*numbers: int, protocol: str = "TCP") -> dict[str, Any]:
    return {"toPorts": [{"ports": [{"port": str(number), "protocol": protocol} for number in numbers]}]}


@contextmanager
def made_edge(directory: Path) -> Iterator[Edge]:
    with made_host(directory, "web", "client", started=False) as made:
        make_namespace(made.inside("outside"))
        name = Path(made.inside("outside")).name
        run_ip(
            made.path,
            [
                f"link add eth0 type veth peer name eth0 netns {name}",
                "address add 192.0.2.1/24 dev eth0",
                "address add 2001:db8::1/64 dev eth0 nodad",
                "link set eth0 up",
                "route add default via 192.0.2.9",
                "route add default via 2001:db8::9",
            ],
        )
        run_ip(
            made.inside("outside"),
            [
                *(f"address add {address} dev eth0" for address in ("192.0.2.9/24", "198.51.100.9/32")),
                *(f"address add {address} dev eth0 nodad" for address in ("2001:db8::9/64", "2001:db8:1::9/128")),
                "link set eth0 up",
            ],
        )
        made.write("base.yaml", NAMESPACE + node(addresses=list(HOST.values())))
        with inside(made.path), Host.open(made.config) as host:
            edge = Edge(made, host)
            until(lambda: all(edge.ping("host", one) for one in OUTSIDE.values()), "the outside answers")
            yield edge
