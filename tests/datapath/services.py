"""Services written straight into their maps, as bpf/lib/service.h lays them out: what a test of a program needs.

services.serve("10.96.0.1", 80, ["10.1.0.2:8080", "10.1.0.3:8080"])
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import numpy as np

from reconciler.bpf import maps
from reconciler.bpf.syscalls import held
from reconciler.kernel.bpf_maps import PinnedMaps
from reconciler.model.maglev import Pool, tables

TCP = 6
MAGLEV, RANDOM = 0, 1
INSIDE, OUTSIDE = 0, 1
ONLY_LOCAL, ONLY_SOURCES = 1, 2  # FRONTEND_LOCAL, FRONTEND_SOURCES
DRAINING = 4
_INNER_MAP = 1 << 12  # BPF_F_INNER_MAP
_MAPS = (
    "frontends4", "frontends6", "services", "service_tables", "backends", "service_flows4", "service_flows6",
    "affinities", "socket_flows", "service_sources4", "service_sources6",
)  # fmt: skip


class Services:
    """Backends are named `address:port`, of IPv6 `[address]:port`."""

    def __init__(self, pinned: PinnedMaps) -> None:
        self._maps = pinned
        self._backends: dict[tuple[str, int], int] = {}
        self._versions = 0
        self._names: dict[tuple[str, int, int], int] = {}

    def clear(self) -> None:
        for name in _MAPS:
            if found := self._maps.find(name):
                found.delete(found.read()[0])

    def serve(
        self,
        address: str,
        port: int,
        backends: Sequence[str],
        *,
        protocol: int = TCP,
        weights: Mapping[str, int] | None = None,
        algorithm: int = MAGLEV,
        affinity_s: int = 0,
        flags: int = 0,
        since: int = 0,
        scope: int = INSIDE,
        sources: Sequence[str] = (),
        only_local: bool = False,
    ) -> None:
        """The service's newest version; from epoch `since` on."""
        self._versions += 1
        version = self._versions
        name = self._names.setdefault((address, port, protocol), len(self._names) + 1)
        numbers = [self.know(backend, protocol) for backend in backends]
        slots = self._table(version, backends, numbers, weights or {}) if numbers else 0
        row = struct.pack("=IIIHBB", name, affinity_s, slots, len(numbers), algorithm, flags)
        self._put("services", struct.pack("=I", version), row)
        before = self._service_of(address, port, protocol, scope)
        for network in map(ip_network, sources):
            key = struct.pack("=II", 32 + network.prefixlen, version) + network.network_address.packed
            self._put(f"service_sources{network.version}", key, bytes(4))
        limited = ONLY_SOURCES * bool(sources) | ONLY_LOCAL * only_local
        row = struct.pack("=IIIHH", version, before, since, limited, limited)
        self._put(f"frontends{ip_address(address).version}", _frontend(address, port, protocol, scope), row)

    def stop(self, address: str, port: int, protocol: int = TCP, scope: int = INSIDE) -> None:
        self._delete(f"frontends{ip_address(address).version}", _frontend(address, port, protocol, scope))

    def know(self, backend: str, protocol: int = TCP, flags: int = 0) -> int:
        """The number of a backend, which is there from now on."""
        address, port = _parted(backend)
        number = self._backends.setdefault((backend, protocol), len(self._backends) + 1)
        v6 = int(address.version == 6)
        row = address.packed.ljust(16, b"\0") + struct.pack("!HBB", port, protocol, flags | v6) + bytes(4)
        self._put("backends", struct.pack("=I", number), row)
        return number

    def kill(self, backend: str, protocol: int = TCP) -> None:
        """It is dead: its row goes, whatever tables still name it."""
        self._delete("backends", struct.pack("=I", self._backends[backend, protocol]))

    def _table(self, version: int, backends: Iterable[str], numbers: list[int], weights: Mapping[str, int]) -> int:
        hashes = tuple(int.from_bytes(blake2b(one.encode(), digest_size=8).digest()) for one in backends)
        shares = tuple(weights.get(one, 1) for one in backends)
        [slots] = tables([Pool(hashes, shares)])
        words = np.zeros(-(-len(slots) // 4) * 4, np.uint16)
        words[: len(slots)] = slots
        tail = np.array([number | share << 32 for number, share in zip(numbers, shares, strict=True)], np.uint64)
        every = np.concatenate([words.view(np.uint64), tail])
        with held(maps.create(maps.ARRAY, 4, 8, len(every), flags=_INNER_MAP, name="table")) as table:
            maps.update_batch(table, np.arange(len(every), dtype=np.uint32), every)
            self._put("service_tables", struct.pack("=I", version), struct.pack("=I", table))
        return len(slots)

    def _service_of(self, address: str, port: int, protocol: int, scope: int) -> int:
        map_ = self._maps.open(f"frontends{ip_address(address).version}")
        found, values = map_.lookup(np.frombuffer(_frontend(address, port, protocol, scope), map_.key_dtype))
        return int(values[0]["service"]) if found[0] else 0

    def _put(self, name: str, key: bytes, value: bytes) -> None:
        map_ = self._maps.open(name)
        records = (
            np.frombuffer(key, np.dtype((np.void, len(key)))),
            np.frombuffer(value, np.dtype((np.void, len(value)))),
        )
        assert not maps.update_singly(map_.descriptor, *records)

    def _delete(self, name: str, key: bytes) -> None:
        map_ = self._maps.open(name)
        map_.delete(np.frombuffer(key, map_.key_dtype))


def _frontend(address: str, port: int, protocol: int, scope: int) -> bytes:
    return ip_address(address).packed + struct.pack("!HBB", port, protocol, scope)


def _parted(backend: str) -> tuple[IPv4Address | IPv6Address, int]:
    address, _, port = backend.rpartition(":")
    return ip_address(address.strip("[]")), int(port)
