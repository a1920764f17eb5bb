"""Addresses, CIDRs and interface names as they are written in manifests.

Stricter than Python's ipaddress where Kubernetes and Cilium are (netip.ParsePrefix): no netmasks, no zones. Addresses
of IPv4 in IPv6 form are refused, since the datapath keeps IPv4 in that very form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from reconciler.source.node import Findings, Node

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_PREFIX_LENGTH = re.compile(r"(?:0|[1-9][0-9]{0,2})\Z")
_MAPPED = ip_network("::ffff:0:0/96")
_BROADCAST = IPv4Address("255.255.255.255")
UNUSABLE = "unspecified, loopback, link-local, multicast or broadcast"
_INTERFACE = re.compile(r"[^\s/:%]{1,15}\Z")  # dev_valid_name in net/core/dev.c; % would number it


def network(node: Node, findings: Findings, *, bare: bool = False, host_bits: bool = False) -> Network | None:
    """The CIDR that a node holds, or None after a fault.

    bare        a single address is meant as its full-length CIDR
    host_bits   bits below the prefix length are cut off with a warning, else they are a fault
    """
    text: str = node.value
    head, slash, length = text.partition("/")
    base = _parsed(head)
    if base is None or (slash and not _fits(length, base)) or not (slash or bare):
        form = "an address or a CIDR" if bare else "a CIDR (an address, a slash and a prefix length)"
        findings.fault(node, f'"{text}" is not {form}')
        return None
    found = ip_network(f"{base}/{length}" if slash else base, strict=False)
    if found.network_address != base:
        if not host_bits:
            findings.fault(node, f"{text} has bits below its prefix length: write {found}")
            return None
        findings.warn(node, f"{text} has bits below its prefix length: it means {found}")
    return None if _refused(found, text, node, findings) else found


def address(node: Node, findings: Findings) -> Address | None:
    """The address that a node holds, or None after a fault."""
    found = _parsed(node.value)
    if found is None:
        findings.fault(node, f'"{node.value}" is not an address')
        return None
    return None if _refused(found, node.value, node, findings) else found


def address_like(text: str) -> bool:
    return _parsed(text) is not None


def interface(node: Node, findings: Findings) -> str:
    """The interface name that a node holds, or '' after a fault."""
    name: str = node.value
    if _INTERFACE.match(name) and name not in (".", ".."):
        return name
    findings.fault(node, f'"{name}" is not an interface name: up to 15 characters, no blanks, `/`, `:` or `%`')
    return ""


def per_family(nodes: Iterable[Node], findings: Findings, what: str) -> dict[int, tuple[Address, Node]]:
    """family (4 or 6) -> address and its node; a fault if there are two of one family."""
    found: dict[int, tuple[Address, Node]] = {}
    for node in nodes:
        one = address(node, findings)
        if one is None:
            continue
        if one.version in found:
            findings.fault(node, f"{what} has two IPv{one.version} addresses, at most one of each family is allowed")
        else:
            found[one.version] = one, node
    return found


def _parsed(text: str) -> Address | None:
    if "%" in text:
        return None
    try:
        return ip_address(text)
    except ValueError:
        return None


def _fits(length: str, base: Address) -> bool:
    return bool(_PREFIX_LENGTH.match(length)) and int(length) <= base.max_prefixlen


def _refused(found: Address | Network, text: str, node: Node, findings: Findings) -> bool:
    base = found.network_address if isinstance(found, IPv4Network | IPv6Network) else found
    length = found.prefixlen if isinstance(found, IPv4Network | IPv6Network) else found.max_prefixlen
    if base in _MAPPED and length >= _MAPPED.prefixlen and isinstance(base, IPv6Address):
        shorter = f"/{length - _MAPPED.prefixlen}" if "/" in text else ""
        findings.fault(node, f"{text} is IPv4 in IPv6 form: write the IPv4 form, {base.ipv4_mapped}{shorter}")
        return True
    return False


def unusable(found: Address) -> bool:
    """Whether nobody can be reached at it from another host: `UNUSABLE` says why."""
    special = found.is_unspecified or found.is_loopback or found.is_link_local or found.is_multicast
    return special or found == _BROADCAST


def multicast_fault(address: IPv4Address | IPv6Address) -> str:
    """Why it is no end of a flow that policy judges, '' if it can be. As is_multicast() in bpf/lib/passage.h."""
    first = address.packed[0]
    is_one = first == 0xFF if address.version == 6 else first >> 4 == 0xE or address == _BROADCAST
    if not is_one:
        return ""
    return f"{address} is no end of a flow: multicast and broadcast are dropped before policy is asked"
