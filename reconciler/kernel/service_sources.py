"""Clients that may use a service from outside: the tries `service_sources4` and `6` (bpf/lib/service.h)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network

import numpy as np

from reconciler.bpf.maps import Records
from reconciler.kernel.bpf_maps import Map, PinnedMaps

Networks = tuple[IPv4Network | IPv6Network, ...]

_MAPS = {4: "service_sources4", 6: "service_sources6"}
_SERVICE_BITS = 32  # of the key, before the address


class ServiceSources:
    def __init__(self, pinned: PinnedMaps) -> None:
        self._maps = pinned

    def live(self) -> dict[int, Networks]:
        """service -> networks, in the order of their texts."""
        found: defaultdict[int, list[IPv4Network | IPv6Network]] = defaultdict(list)
        for version in _MAPS:
            for key in self._keys(version):
                address = np.ascontiguousarray(key["address"]).tobytes()
                bits = max(0, int(key["prefixlen"]) - _SERVICE_BITS)
                found[int(key["service"])].append(ip_network((address, bits), strict=False))
        return {service: tuple(sorted(networks, key=str)) for service, networks in found.items()}

    def become(self, wanted: Mapping[int, Networks]) -> None:
        """service -> networks: these and no others. Other services are left alone."""
        for version, name in _MAPS.items():
            asked = [(service, one) for service, some in wanted.items() for one in some if one.version == version]
            keys = self._keys(version)
            there = keys[np.isin(keys["service"], np.fromiter(wanted, np.uint32, len(wanted)))] if len(keys) else keys
            if not asked and not len(there):
                continue
            map_ = self._maps.open(name)
            new = _to_map(map_, asked)
            map_.update(new, np.zeros(len(new), map_.value_dtype))
            kept = {key.tobytes() for key in new}
            map_.delete(there[[key.tobytes() not in kept for key in there]])

    def _keys(self, version: int) -> Records:
        map_ = self._maps.find(_MAPS[version])
        return map_.read()[0] if map_ else np.empty(0)


def _to_map(map_: Map, asked: Iterable[tuple[int, IPv4Network | IPv6Network]]) -> Records:
    pairs = list(asked)
    keys = np.zeros(len(pairs), map_.key_dtype)
    for key, (service, network) in zip(keys, pairs, strict=True):
        key["prefixlen"], key["service"] = _SERVICE_BITS + network.prefixlen, service
        key["address"] = np.frombuffer(network.network_address.packed, key["address"].dtype.base).reshape(
            key["address"].shape
        )
    return keys
