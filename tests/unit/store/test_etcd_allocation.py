"""What hosts take from each other's hands: identities, addresses and CIDRs, with many processes at one etcd."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from ipaddress import IPv4Network
from multiprocessing.synchronize import Barrier
from typing import Any

import pytest

from reconciler.errors import CompileError
from reconciler.model.cluster import Pool
from reconciler.model.labels import Label, LabelSet
from reconciler.store.addresses import Addresses
from reconciler.store.etcd import EtcdStore
from reconciler.store.etcd_servers import Servers
from reconciler.store.identities import Identities
from reconciler.store.node_cidrs import NodeCidrs

from .etcd_server import EtcdServer, running

HOSTS, LABEL_SETS = 8, 1000
WAIT_S = 120.0

Results = multiprocessing.Queue


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    with running(tmp_path_factory.mktemp("etcd")) as started:
        yield started


def labels(name: str) -> LabelSet:
    return frozenset({Label("k8s", "app", name), Label("k8s", "env", "test")})


def at_once(work: Callable[..., Any], count: int, endpoint: str) -> list[Any]:
    """What `work(store, number)` gives in each of so many processes that begin together."""
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(count), context.Queue()
    processes = [
        context.Process(target=_worker, args=(work, endpoint, number, start, results)) for number in range(count)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=WAIT_S) for _ in processes]
    for process in processes:
        process.join(WAIT_S)
    return found


def _worker(work: Callable[..., Any], endpoint: str, number: int, start: Barrier, results: Results[Any]) -> None:
    with closing(EtcdStore(Servers([endpoint]))) as store:
        store.get("/")
        start.wait(WAIT_S)
        try:
            results.put(work(store, number))
        except Exception as error:  # the parent fails by it
            results.put(error)


def same_label_sets(store: EtcdStore, number: int) -> dict[LabelSet, int]:
    return Identities(store, 0, "same").allocate([labels(str(one)) for one in range(LABEL_SETS)])


def test_hosts_that_race_for_the_same_label_sets_get_one_number_for_each(server: EtcdServer) -> None:
    found = at_once(same_label_sets, HOSTS, server.endpoint)
    assert len(set(found[0].values())) == LABEL_SETS
    assert all(one == found[0] for one in found)


def one_by_one(store: EtcdStore, number: int) -> dict[LabelSet, int]:
    """Each host meets the label sets in an order of its own, as workloads come."""
    identities = Identities(store, 0, "one by one")
    found: dict[LabelSet, int] = {}
    for one in range(100):
        found |= identities.allocate([labels(str((one * (2 * number + 1) + number * 37) % 100))])
    return found


def test_hosts_that_meet_label_sets_one_by_one_agree_as_well(server: EtcdServer) -> None:
    found = at_once(one_by_one, HOSTS, server.endpoint)
    numbers: dict[LabelSet, int] = {}
    for one in found:
        numbers |= one
    assert all(numbers[labels] == number for one in found for labels, number in one.items())
    assert len(set(numbers.values())) == len(numbers) == 100


NODES, REQUESTS_OF_EACH = 5, 50
SLASH_24 = IPv4Network("10.44.0.0/24")


def many_addresses(store: EtcdStore, number: int) -> list[str]:
    """In threads, and each with an object of its own, so that they meet in the store only."""

    def one(place: int) -> str:
        pool = Addresses(store, "alpha", SLASH_24, None, cluster="addresses")
        return str(pool.allocate([f"w/{number}-{place}"])[f"w/{number}-{place}"][0])

    with ThreadPoolExecutor(REQUESTS_OF_EACH) as threads:
        return list(threads.map(one, range(REQUESTS_OF_EACH)))


def test_250_requests_at_once_get_as_many_addresses_of_a_24_and_then_it_is_used_up(server: EtcdServer) -> None:
    found = [address for one in at_once(many_addresses, NODES, server.endpoint) for address in one]
    assert len(set(found)) == NODES * REQUESTS_OF_EACH == 250
    with closing(EtcdStore(Servers([server.endpoint]))) as store:
        pool = Addresses(store, "alpha", SLASH_24, None, cluster="addresses")
        assert {str(address) for address in pool.held()} == set(found)
        with pytest.raises(CompileError, match="is used up: 250 addresses are in use, 5 more are wanted, 4 are free"):
            pool.allocate([f"late/{number}" for number in range(5)])


def same_workload(store: EtcdStore, number: int) -> list[str]:
    pool = Addresses(store, "alpha", SLASH_24, None, cluster="same workload")
    return [str(pool.allocate([f"w/{one}"])[f"w/{one}"][0]) for one in range(20)]


def test_processes_that_ask_for_the_same_workloads_agree(server: EtcdServer) -> None:
    found = at_once(same_workload, 4, server.endpoint)
    assert all(one == found[0] for one in found)
    assert len(set(found[0])) == 20


def node_cidrs(store: EtcdStore, number: int) -> list[str]:
    cidrs = NodeCidrs(store, [Pool(IPv4Network("10.0.0.0/8"), 24)], "nodes")
    return [str(cidrs.allocate(f"node-{number}-{one}")[0]) for one in range(10)]


def test_nodes_that_join_at_once_get_cidrs_that_do_not_clash(server: EtcdServer) -> None:
    found = [cidr for one in at_once(node_cidrs, 6, server.endpoint) for cidr in one]
    assert len(set(found)) == 60


def test_addresses_survive_a_restart_of_etcd(server: EtcdServer) -> None:
    with closing(EtcdStore(Servers([server.endpoint]))) as store:
        before = Addresses(store, "alpha", SLASH_24, None, cluster="restart").allocate(["a", "b"])
    server.kill()
    server.again()
    server.wait()
    with closing(EtcdStore(Servers([server.endpoint]))) as store:
        assert Addresses(store, "alpha", SLASH_24, None, cluster="restart").allocate(["b", "a"]) == before
