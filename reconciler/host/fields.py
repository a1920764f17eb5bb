"""Rows as people read them: prefixes instead of words of 64 bits, labels beside identities, rules beside cookies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import numpy as np

from reconciler.engine.render import fields_of
from reconciler.model.balancing import BackendFlag, FrontendFlag, Scope, ServiceRow, address_of
from reconciler.model.datapath import IpcacheFlag, PolicyFlag, Verdict
from reconciler.model.policy import PROTOCOLS

_PROTOCOL_NAMES = {number: name.lower() for name, number in PROTOCOLS.items()}
_MAPPED = 0xFFFF << 32  # ::ffff:0:0/96, the upper half of the lower word
_MAPPED_BITS = 96

IdentityName = Callable[[int], str]
RuleName = Callable[[int], str]


class RowFields:
    """Called as `fields(table, key or row)`. `identity_name` and `rule_name` turn numbers into what people know."""

    def __init__(self, identity_name: IdentityName, rule_name: RuleName) -> None:
        self._identity_name = identity_name
        self._rule_name = rule_name

    def __call__(self, table: str, value: Any) -> Mapping[str, object]:
        if isinstance(value, np.void) and value.dtype.names:
            if "subject" in value.dtype.names:
                return self._policy_key(value)
            if "verdict" in value.dtype.names:
                return self._policy_value(value)
            if "scope" in value.dtype.names:
                return _frontend(value)
            if table == "backends" and "high" in value.dtype.names:
                return _backend(value)
            if "high" in value.dtype.names:
                return {"": str(prefix(int(value["high"]), int(value["low"]), int(value["bits"])))}
            if table == "prefilter":  # the value only repeats the length
                return {}
            if table == "ipcache":
                return self._ipcache_value(value)
            if table == "frontends":
                return _frontend_value(value)
        if isinstance(value, ServiceRow):
            weights = [f"{number}*{weight}" for number, weight in value.backends]
            return {**fields_of(table, value), "backends": weights}
        return fields_of(table, value)

    def _policy_key(self, key: np.void) -> Mapping[str, object]:
        peer = int(key["peer"])
        return {
            "subject": self._identity_name(int(key["subject"])),
            "direction": "egress" if key["egress"] else "ingress",
            "peer": self._identity_name(peer) if peer else "any",
            "port": ports(int(key["protocol"]), int(key["port"]), int(key["port_bits"])),
        }

    def _policy_value(self, value: np.void) -> Mapping[str, object]:
        shown: dict[str, object] = {"": Verdict(int(value["verdict"])).name.lower().replace("_", "-")}
        if value["flags"]:
            shown["flags"] = str(PolicyFlag(int(value["flags"])).name).lower()
        if value["cookie"]:
            shown["rule"] = self._rule_name(int(value["cookie"]))
        return shown

    def _ipcache_value(self, value: np.void) -> Mapping[str, object]:
        shown: dict[str, object] = {"identity": self._identity_name(int(value["identity"]))}
        if value["flags"]:
            shown["flags"] = str(IpcacheFlag(int(value["flags"])).name).lower().replace("|", " ")
        return shown


def _frontend(key: np.void) -> Mapping[str, object]:
    scope = Scope(int(key["scope"])).name.lower()
    return {"": f"{endpoint(key)} {scope}"}


def _frontend_value(value: np.void) -> Mapping[str, object]:
    shown: dict[str, object] = {"service": int(value["service"])}
    if value["flags"]:
        shown["flags"] = str(FrontendFlag(int(value["flags"])).name).lower().replace("|", " ")
    return shown


def _backend(value: np.void) -> Mapping[str, object]:
    shown: dict[str, object] = {"": endpoint(value)}
    if value["flags"]:
        shown["flags"] = str(BackendFlag(int(value["flags"])).name).lower().replace("|", " ")
    return shown


def endpoint(row: np.void) -> str:
    """`10.96.0.1:80/tcp`, `[fd96::1]:53/udp`."""
    address, protocol = address_of(int(row["high"]), int(row["low"])), int(row["protocol"])
    host = f"[{address}]" if address.version == 6 else str(address)
    return f"{host}:{row['port']}/{_PROTOCOL_NAMES.get(protocol, protocol)}"


def prefix(high: int, low: int, bits: int) -> IPv4Network | IPv6Network | IPv4Address | IPv6Address:
    """An ipcache key as the network, or the single address, that it stands for."""
    if not high and low >> 32 == _MAPPED >> 32 and bits >= _MAPPED_BITS:
        address4 = IPv4Address(low & 0xFFFFFFFF)
        return address4 if bits == 128 else IPv4Network((address4, bits - _MAPPED_BITS))
    address6 = IPv6Address(high << 64 | low)
    return address6 if bits == 128 else IPv6Network((address6, bits))


def ports(protocol: int, port: int, port_bits: int) -> str:
    """`any`, `tcp`, `80/tcp`, `1024-2047/udp`."""
    if not protocol:
        return "any"
    name = _PROTOCOL_NAMES.get(protocol, str(protocol))
    if not port_bits:
        return name
    last = port | (1 << (16 - port_bits)) - 1
    return f"{port}/{name}" if last == port else f"{port}-{last}/{name}"
