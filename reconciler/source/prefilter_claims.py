"""What a Prefilter must not deny: whatever the cluster itself speaks with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import numpy as np
from numpy.typing import NDArray

from reconciler.engine.distinct import distinct
from reconciler.errors import Fault
from reconciler.model.cluster import Cluster, StoreChoice
from reconciler.model.cluster import Node as Host
from reconciler.model.prefilter import Prefilter, is_ipv4, masked
from reconciler.source.addresses import Address, Network, address_like
from reconciler.source.prefilters import key_of, records
from reconciler.source.references import Documents

_LINK_LOCAL = ip_network("fe80::/10")
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


def prefilter_faults(documents: Documents) -> Iterator[Fault]:
    """One for each entry that touches what the cluster needs."""
    if not documents.prefilters:
        return
    needed = dict(_needed(documents))
    networks = list(needed)
    guarded = records([key_of(network) for network in networks])
    for placed in documents.prefilters.values():
        content = placed.document.content
        assert isinstance(content, Prefilter)
        for entry, index in sorted(overlaps(content.keys, guarded).items()):
            line, column = content.place(entry).item()
            network = networks[index]
            message = f"{_shown(content.keys[entry])} cuts off {needed[network]}: leave it out, or split the CIDR"
            yield Fault(placed.path, line, column, message)


def _needed(documents: Documents) -> Iterator[tuple[Network, str]]:
    """Each with what it is."""
    for placed in documents.hosts.values():
        host = placed.document.content
        assert isinstance(host, Host)
        yield from _of_host(host, f"{placed.document.identity} at {placed}")
    for placed in documents.clusters:
        cluster = placed.document.content
        assert isinstance(cluster, Cluster)
        yield from _of_cluster(cluster, f"the Cluster at {placed}")
    yield _LINK_LOCAL, f"{_LINK_LOCAL}, by which neighbours find each other"


def _of_host(host: Host, said: str) -> Iterator[tuple[Network, str]]:
    for address in (host.address4, host.address6):
        if address is not None:
            yield ip_network(address), f"{address}, an address of {said}"
    for cidr in (host.cidr4, host.cidr6):
        if cidr is not None:
            yield cidr, f"{cidr}, for workloads of {said}"


def _of_cluster(cluster: Cluster, said: str) -> Iterator[tuple[Network, str]]:
    for choice in (cluster.store, *(joined.store for joined in cluster.clusters)):
        for address in _servers(choice):
            yield ip_network(address), f"{address}, a server of the store of {said}"
    for pool in cluster.pools:
        yield pool.cidr, f"{pool.cidr}, a pool for nodes of {said}"
    for cidr in cluster.services.cidrs if cluster.services else ():
        yield cidr, f"{cidr}, for services of {said}"


def _servers(choice: StoreChoice) -> Iterator[Address]:
    """Those that are given by address."""
    for endpoint in choice.endpoints:
        host = endpoint.rpartition(":")[0].strip("[]")
        if address_like(host):
            yield ip_address(host)


def overlaps(keys: NDArray[np.void], others: NDArray[np.void]) -> dict[int, int]:
    """Index of each CIDR that one of the others holds or lies in -> index of that one.

    Two CIDRs overlap if they agree in the bits of the shorter one, so a look at each length that there is will do.
    """
    found: dict[int, int] = {}
    for ipv4 in (True, False):
        mine, theirs = np.flatnonzero(is_ipv4(keys) == ipv4), np.flatnonzero(is_ipv4(others) == ipv4)
        of_mine, of_theirs = keys["bits"][mine], others["bits"][theirs]
        for length in distinct(of_mine).tolist():
            pairs = _equal(keys, mine[of_mine == length], others, theirs[of_theirs >= length], length)
            found = dict(pairs) | found
        for length in distinct(of_theirs).tolist():
            pairs = _equal(keys, mine[of_mine > length], others, theirs[of_theirs == length], length)
            found = dict(pairs) | found
    return found


def _equal(
    keys: NDArray[np.void],
    mine: NDArray[np.intp],
    others: NDArray[np.void],
    theirs: NDArray[np.intp],
    length: int,
) -> Iterator[tuple[int, int]]:
    """Pairs of indices that agree in their first bits, one for each key; found by a hash, confirmed by themselves."""
    own, other = masked(keys[mine], length), masked(others[theirs], length)
    index = dict(zip(_pairs(other), theirs.tolist(), strict=True))
    likely = np.flatnonzero(np.isin(_hashed(own), _hashed(other)))
    for at, pair in zip(mine[likely].tolist(), _pairs([words[likely] for words in own]), strict=True):
        if pair in index:
            yield at, index[pair]


def _pairs(words: Sequence[NDArray[np.uint64]]) -> Iterator[tuple[int, int]]:
    return zip(words[0].tolist(), words[1].tolist(), strict=True)


def _hashed(words: Sequence[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    return words[0] * _SPREAD ^ words[1]


def _shown(key: np.void) -> Network:
    high, low, bits, _ = key.item()
    if is_ipv4(np.array([key], key.dtype))[0]:
        return IPv4Network((low & 0xFFFFFFFF, bits - 96))
    return IPv6Network((high << 64 | low, bits))
