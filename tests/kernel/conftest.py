"""Namespaces of their own for every test of the live kernel; one that is left behind fails its test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.kernel import netns

from .hands import NETNS, PREFIX, ip

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.root)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    yield
    left = list(NETNS.glob(f"{PREFIX}*"))
    for path in left:
        netns.remove(str(path))
    assert not left, f"namespaces left behind: {left}"


@pytest.fixture
def namespace(nothing_left_behind: None) -> Iterator[Callable[[str], str]]:
    """Makes a namespace that goes with the test; returns its path."""
    made: list[str] = []

    def make(name: str) -> str:
        path = str(NETNS / f"{PREFIX}{name}")
        netns.create(path)
        made.append(path)
        return path

    yield make
    for path in made:
        netns.remove(path)


@pytest.fixture
def host(namespace: Callable[[str], str]) -> Iterator[str]:
    """The test's thread is in a namespace of its own, as if it were the host's; the loopback is up."""
    path = namespace("host")
    with netns.inside(path):
        ip("link set lo up")
        yield path


@pytest.fixture
def workload(host: str, namespace: Callable[[str], str]) -> str:
    return namespace("web")


@pytest.fixture
def veth(host: str) -> str:
    """A link of somebody else, up, with carrier, in the host's namespace."""
    ip("link add veth0 type veth peer name veth1")
    ip("link set veth0 up")
    ip("link set veth1 up")
    return "veth0"
