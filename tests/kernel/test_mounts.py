"""A network namespace that is mounted wakes whoever waits for it."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

import pytest

from reconciler.kernel import netns
from reconciler.observe.mounts import MountWatch

pytestmark = pytest.mark.root

PATH = f"/run/netns/pt-m{os.getpid()}"


@pytest.fixture
def watch() -> Iterator[MountWatch]:
    opened = MountWatch()
    yield opened
    opened.close()
    netns.remove(PATH)


def _wakes(watch: MountWatch, within_ms: int = 5000) -> bool:
    """As an event loop looks: level-triggered."""
    poll = select.poll()
    poll.register(watch.fileno(), select.POLLIN)
    return bool(poll.poll(within_ms))


def test_a_namespace_is_missing_until_it_is_mounted(watch: MountWatch) -> None:
    watch.read()
    assert netns.is_missing(PATH)
    netns.create(PATH)
    assert _wakes(watch)
    assert not netns.is_missing(PATH)


def test_a_file_of_that_name_is_no_namespace(watch: MountWatch) -> None:
    os.close(os.open(PATH, os.O_CREAT))
    assert netns.is_missing(PATH)


def test_another_kind_of_namespace_is_no_network_namespace() -> None:
    assert netns.is_missing("/proc/self/ns/mnt")
    assert not netns.is_missing("/proc/self/ns/net")


def test_each_mount_wakes_again(watch: MountWatch) -> None:
    for _ in range(20):
        netns.create(PATH)
        assert _wakes(watch)
        watch.read()
        netns.remove(PATH)
        assert _wakes(watch)
        watch.read()
