"""Probes, against real sockets: what counts as open, what as closed, and what as neither."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from reconciler.host.connection_probe import ConnectionProbe

LOOPBACK = "127.0.0.1"


@pytest.fixture
def listening() -> Iterator[int]:
    """A port that opens."""
    with socket.create_server((LOOPBACK, 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def refusing() -> Iterator[int]:
    """A port that is taken and refuses."""
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        yield taken.getsockname()[1]


def closed(port: int) -> ConnectionProbe:
    return ConnectionProbe("p", netns="", host=LOOPBACK, port=port, expect_open=False, deadline_s=1)


def test_what_opens_is_open(listening: int) -> None:
    assert replace(closed(listening), expect_open=True).check() is None
    assert closed(listening).check() == f"{LOOPBACK} port {listening} opens, and should not"


def test_what_is_refused_is_closed(refusing: int) -> None:
    assert closed(refusing).check() is None
    assert "does not open" in str(replace(closed(refusing), expect_open=True).check())


def test_what_could_not_be_tried_is_not_closed(refusing: int) -> None:
    complaint = replace(closed(refusing), netns="/run/netns/pt-nowhere").check()
    assert complaint == f"{LOOPBACK} port {refusing} could not be tried: there is no network namespace at " + (
        "/run/netns/pt-nowhere"
    )
