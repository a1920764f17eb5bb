"""The network between the hosts of a lab: a bridge in a namespace of its own, which also routes and is the outside.

Made with iproute2 in batches, one process for each namespace. Hosts are neighbours on the bridge; the networks of their
workloads are routed by it, as by a fabric between racks; but not in an overlay, which has to carry them itself.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from reconciler.errors import KernelError
from reconciler.kernel import netns
from reconciler.lab.topology import OUTSIDE4, OUTSIDE6, RANGE4, RANGE6, Address, Host

_BRIDGE = "br0"
_DEVICE = "eth0"
_AT_ONCE = {4: "", 6: " nodad"}
_ROUTER = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv4/conf/all/send_redirects": "0",  # hosts that are neighbours would be told to go directly
    "net/ipv4/conf/default/send_redirects": "0",
}


def make_underlay(path: str) -> None:
    """Raises KernelError."""
    make_namespace(path)
    with netns.inside(path):
        for name, value in _ROUTER.items():
            Path("/proc/sys", name).write_text(value)
    run_ip(
        path,
        [
            f"link add {_BRIDGE} type bridge",
            f"address add {OUTSIDE4}/{RANGE4.prefixlen} dev {_BRIDGE}",
            f"address add {OUTSIDE6}/{RANGE6.prefixlen} dev {_BRIDGE} nodad",
            f"link set {_BRIDGE} up",
        ],
    )


def add_addresses(path: str, addresses: Iterable[Address]) -> None:
    """Of servers in the underlay, besides the outside's own. Raises KernelError."""
    new = {one for one in addresses if one not in (OUTSIDE4, OUTSIDE6)}
    run_ip(path, [f"address replace {one}/{one.max_prefixlen} dev {_BRIDGE}{_AT_ONCE[one.version]}" for one in new])


def make_host(underlay: str, host: Host) -> None:
    """The host's namespace with its device on the bridge. Raises KernelError."""
    make_namespace(host.namespace)
    name = Path(host.namespace).name
    run_ip(underlay, [f"link add port%d master {_BRIDGE} up type veth peer name {_DEVICE} netns {name}"])
    run_ip(host.namespace, _host_side(host))
    run_ip(underlay, _underlay_side(host))


def make_namespace(path: str) -> None:
    """A network namespace with its loopback up. Raises KernelError."""
    netns.create(path)
    run_ip(path, ["link set lo up"])


def _host_side(host: Host) -> list[str]:
    address4, address6 = host.addresses
    return [
        f"address add {address4}/32 dev {_DEVICE}",
        f"address add {address6}/128 dev {_DEVICE} nodad",
        f"link set {_DEVICE} up",
        f"route add {RANGE4} dev {_DEVICE} src {address4}",
        f"route add {RANGE6} dev {_DEVICE} src {address6}",
        f"route add default via {OUTSIDE4} dev {_DEVICE} onlink src {address4}",
        f"route add default via {OUTSIDE6} dev {_DEVICE} onlink src {address6}",
    ]


def _underlay_side(host: Host) -> list[str]:
    links = [f"route replace {address} dev {_BRIDGE}" for address in host.addresses]
    return links + [f"route replace {cidr} via {_of_family(host, cidr)} dev {_BRIDGE} onlink" for cidr in host.cidrs]


def _of_family(host: Host, cidr: IPv4Network | IPv6Network) -> Address:
    return next(address for address in host.addresses if address.version == cidr.version)


def run_ip(path: str, commands: Sequence[str]) -> None:
    """iproute2 commands, in the namespace at `path`. Raises KernelError with what `ip` said."""
    with netns.inside(path):
        result = subprocess.run(
            ["ip", "-batch", "-"], input="\n".join(commands), capture_output=True, text=True, check=False
        )
    if result.returncode:
        raise KernelError(f"{path}: the network cannot be made: {' '.join(result.stderr.split())}")
