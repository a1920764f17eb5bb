"""One loaded datapath for all tests here, in a namespace of its own and as new for each test."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from reconciler.bpf import bpffs
from reconciler.kernel import netns
from reconciler.model.datapath import GATEWAY_MAC

from .harness import Device, Harness, loaded_at
from .road import Road, made_road

HERE = Path(__file__).parent
OPTIONS = {"prefilter": True, "gateway_mac": bytes.fromhex(GATEWAY_MAC.replace(":", ""))}
WORKLOADS = 3


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.root)


@pytest.fixture(scope="session")
def namespace() -> Iterator[str]:
    """The path of a namespace for devices."""
    path = f"/run/netns/pt-dp{os.getpid()}"
    netns.create(path)
    try:
        yield path
    finally:
        netns.remove(path)


@pytest.fixture
def pin_root() -> Iterator[Path]:
    """A pin root for one test, gone after it with all that is pinned there."""
    root = bpffs.MOUNT_POINT / f"pt-{os.getpid()}-one"
    yield root
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def _loaded(namespace: str) -> Iterator[Harness]:
    root = bpffs.MOUNT_POINT / f"pt-{os.getpid()}-all"
    with netns.inside(namespace):
        devices = tuple(made_device(number) for number in range(1, WORKLOADS + 1))
    with loaded_at(root, devices, OPTIONS) as harness:
        yield harness


@pytest.fixture
def datapath(_loaded: Harness, namespace: str) -> Iterator[Harness]:
    """The test's thread is in the namespace of the devices."""
    with netns.inside(namespace):
        _loaded.reset()
        yield _loaded
        _loaded.generation.finish()


@pytest.fixture
def road(datapath: Harness, namespace: str) -> Iterator[Road]:
    with made_road(datapath, namespace) as made:
        yield made


def made_device(number: int) -> Device:
    ifname, peer = f"lxc{number}", f"eth{number}"
    mac = f"02:00:00:00:00:{number:02x}"
    command = f"link add {ifname} address {GATEWAY_MAC} type veth peer name {peer} address {mac}"
    subprocess.run(["ip", *command.split()], check=True)
    addresses = IPv4Address(f"10.1.0.{number}"), IPv6Address(f"fd00:1::{number}")
    return Device(ifname, socket.if_nametoindex(ifname), mac, *addresses, identity=100 + number)
