"""Rules for nodes that would keep this host from the store that it gets its commits' facts from."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

import numpy as np

from reconciler.engine.rows import Columns
from reconciler.host.target import Target
from reconciler.model.identity import Reserved
from reconciler.model.policy import PROTOCOLS
from reconciler.model.snapshot import Warning
from reconciler.verdict.case import Word
from reconciler.verdict.rows import Ipcache, Peer, PolicyRows

_ALL_BITS = 128


def cut_off(target: Target) -> Iterator[Warning]:
    """A warning for each server of the store, given by address, that the host may not open a connection to."""
    policy, ipcache = target.desired.tables["policy"], target.desired.tables["ipcache"]
    assert isinstance(policy, Columns)
    assert isinstance(ipcache, Columns)
    own = policy.take(np.flatnonzero(policy.keys["subject"] == Reserved.HOST))
    servers = list(_servers(target.snapshot.cluster.store.endpoints)) if len(own) else []
    if not servers:
        return
    rows, origin = PolicyRows(own), target.snapshot.cluster.origin
    for address, port in servers:
        peer = _around(ipcache, address).find(address)
        side = rows.judge(Peer(Reserved.HOST, 0), peer.identity, egress=True, protocol=PROTOCOLS["TCP"], port=port)
        if side.word is Word.DENY:
            said = f"policies for nodes keep {target.facts.node} from its store at {address} port {port}"
            yield Warning(origin.path, origin.line, 1, f"{said}: allow it in egress")


def _servers(endpoints: tuple[str, ...]) -> Iterator[tuple[IPv4Address | IPv6Address, int]]:
    for endpoint in endpoints:
        host, _, port = endpoint.rpartition(":")
        try:
            yield ip_address(host.strip("[]")), int(port)
        except ValueError:  # a name: what it stands for is not known here
            continue


def _around(ipcache: Columns, address: IPv4Address | IPv6Address) -> Ipcache:
    """What may tell of one address: few rows of many."""
    value = int(address) | (0xFFFF << 32 if address.version == 4 else 0)
    keys = ipcache.keys
    itself = (keys["high"] == value >> 64) & (keys["low"] == value & (1 << 64) - 1)
    return Ipcache(ipcache.take(np.flatnonzero(itself | (keys["bits"] < _ALL_BITS))))
