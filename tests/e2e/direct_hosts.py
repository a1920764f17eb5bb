"""Hosts that answer clients outside directly, in every way that there is.

The service `far` has one backend, `b2` of the second host, and is at port 80 of the load balancer's address; `web` has
a backend on each host, `a1` and `a2`.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from reconciler.kernel import netns
from tests.e2e.client_outside import LOAD_BALANCER, PORT, Servers, set_out
from tests.e2e.hosts import Hosts, made_hosts
from tests.e2e.offloads import TX_CHECKSUMS, switch

SERVICES = {"cidrs": ["10.96.0.0/24", "fd96::/112"]}
WEB, FAR = 30080, 30081  # node ports


class Way(NamedTuple):
    """`growth`: IP version -> bytes by which a datagram grows between the hosts; `xdp`: mode of the Cluster."""

    network: dict[str, object]
    direct_return: str
    growth: dict[int, int]
    xdp: str = "off"


ROUTES = {"directRoutes": True}
WAYS = {
    "option": Way(ROUTES, "option", {4: 8, 6: 24}),
    "ipip": Way(ROUTES, "ipip", {4: 20, 6: 40}),
    "ipip-xdp": Way(ROUTES, "ipip", {4: 20, 6: 40}, "generic"),
    "geneve": Way(ROUTES, "geneve", {4: 20 + 28, 6: 40 + 40}),
    "vxlan-geneve": Way({"mode": "vxlan"}, "geneve", {4: 20 + 28, 6: 20 + 40}),
    "geneve-geneve": Way({"mode": "geneve"}, "geneve", {4: 20 + 28, 6: 20 + 40}),
}


def manifests(hosts: Hosts) -> str:
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: {{app: a}}
  ports:
    - {{name: tcp, port: 80, targetPort: {PORT}, nodePort: {WEB}}}
    - {{name: udp, port: 80, protocol: UDP, targetPort: {PORT}, nodePort: {WEB}}}
    - {{name: sctp, port: 80, protocol: SCTP, targetPort: {PORT}, nodePort: {WEB}}}
---
apiVersion: v1
kind: Service
metadata: {{name: far}}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  externalIPs: ["{LOAD_BALANCER[4]}", "{LOAD_BALANCER[6]}"]
  ports:
    - {{name: tcp, port: 80, nodePort: {FAR}}}
    - {{name: udp, port: 80, protocol: UDP, nodePort: {FAR}}}
{slices(hosts, "b2")}"""


def slices(hosts: Hosts, *workloads: str) -> str:
    """The backends of `far`."""
    return "".join(
        f"""---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: far-{version}, labels: {{kubernetes.io/service-name: far}}}}
addressType: IPv{version}
endpoints: [{", ".join(f'{{addresses: ["{hosts.address(one, version)}"]}}' for one in workloads)}]
ports: [{{name: tcp, port: {PORT}}}, {{name: udp, port: {PORT}, protocol: UDP}}]
"""
        for version in (4, 6)
    )


@contextmanager
def direct_hosts(directory: Path, way: Way) -> Iterator[Hosts]:
    """Two hosts and their backends; workloads leave with their host's address.

    For XDP the client makes its checksums itself: packets that need one made are handed over to the kernel.
    """
    spec = {
        "network": way.network,
        "services": {**SERVICES, "directReturn": way.direct_return},
        "masquerade": {"enabled": True},
        "xdp": {"mode": way.xdp},
    }
    with made_hosts(directory, **spec) as found, ExitStack() as stack:
        found.write("services.yaml", manifests(found))
        found.converge()
        set_out(found)
        switch(found.space("wire"), "br0", TX_CHECKSUMS, on=way.xdp == "off")
        Servers(found, stack)
        yield found


def put(hosts: Hosts, by: tuple[str, str], to: str, frame: bytes) -> None:
    """A frame on the segment, for a host; `by`: namespace and device."""
    space, device = by
    mac = bytes.fromhex(hosts.mac(to, "eth0").replace(":", ""))
    with netns.inside(hosts.space(space)), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((device, 0))
        wire.send(mac + frame[6:])
