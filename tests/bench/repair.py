"""From tampering to repaired: somebody deletes a map row, deletes a route, detaches a program, removes a pin.

What was done is looked at again and again until it is undone; the next round begins when the daemon has counted it. A
program counts from the return of the call that detached it: all through its grace period that call holds the lock which
attaching takes (kernel net/core/rtnetlink.c). How long it took is a figure of its own.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from reconciler.bpf import programs, syscalls
from reconciler.bpf.syscalls import held
from reconciler.errors import KernelError
from reconciler.kernel import netns
from reconciler.kernel.bpf_maps import PinnedMaps
from tests.bench.figures import Figure, median, percentile
from tests.bench.hosted import Hosted, hosted

POLICIES = 100
REMOTE = 20_000
ROUNDS = 50
VICTIM = 5
_IPV4_ROUTES, _NEW_ROUTE = 0x40, 24  # RTMGRP_IPV4_ROUTE, RTM_NEWROUTE; linux/rtnetlink.h
DEADLINE_S = 10.0
PAUSE_S = 0.00003  # so that a stopwatch that is scheduled before all others does not keep a core from them


class Times(NamedTuple):
    """Milliseconds from the begin of the deed: until its call returned, until it was undone."""

    returned: float
    undone: float


Tampering = Callable[[], tuple[Callable[[], object], Callable[[], bool]]]  # -> the deed, and whether it is undone


def measure() -> Iterator[Figure]:
    with hosted(POLICIES) as host:
        yield from _measure("repair", host)
    with hosted(POLICIES, REMOTE) as host:
        yield from _measure(f"repair.remote_{REMOTE}", host)


def _measure(name: str, host: Hosted) -> Iterator[Figure]:
    for what, tampering in (
        ("map_row", lambda: _map_row(host)),
        ("route", lambda: _route(host)),
        ("pin", lambda: _pin(host)),
    ):
        yield from _figures(f"{name}.{what}", [_round(host, tampering).undone for _ in range(ROUNDS)])
    rounds = [_round(host, lambda: _program(host)) for _ in range(ROUNDS)]
    yield from _figures(f"{name}.program", [one.undone - one.returned for one in rounds])
    yield Figure(f"{name}.program.call.p50", median([one.returned for one in rounds]), "ms")


def _figures(name: str, times: list[float]) -> Iterator[Figure]:
    yield Figure(f"{name}.p50", median(times), "ms")
    yield Figure(f"{name}.p99", percentile(times, 99), "ms")


def _round(host: Hosted, tampering: Tampering) -> Times:
    """Raises TimeoutError."""
    deed, is_undone = tampering()
    repairs = _repairs(host)
    began = time.monotonic()
    deed()
    returned = time.monotonic()
    _wait(is_undone)
    undone = time.monotonic()
    _wait(lambda: _repairs(host) > repairs and host.client.get("/v1/status")["state"] == "converged")
    return Times((returned - began) * 1000, (undone - began) * 1000)


def _repairs(host: Hosted) -> int:
    return int(host.client.get("/v1/status")["drift_repairs"])


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("not repaired in time")
        time.sleep(PAUSE_S)


def _map_row(host: Hosted) -> tuple[Callable[[], object], Callable[[], bool]]:
    """The identity of a workload's address."""
    map_ = PinnedMaps(host.config.pin_root).open("ipcache4")
    key = np.frombuffer(socket.inet_aton(host.address(VICTIM)), map_.key_dtype)
    return lambda: map_.delete(key), lambda: bool(map_.lookup(key)[0][0])


def _route(host: Hosted) -> tuple[Callable[[], object], Callable[[], bool]]:
    """The host's route to a workload, by an ip(8) that has started already; the kernel tells when it is back."""
    address = host.address(VICTIM)
    command = ["nsenter", f"--net={host.path}", "ip", "-batch", "-"]
    ip = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
    with netns.inside(host.path):
        news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        news.bind((0, _IPV4_ROUTES))
        news.settimeout(DEADLINE_S)

    def delete() -> None:
        assert ip.stdin is not None
        ip.stdin.write(f"route del {address}/32\n")
        ip.stdin.flush()

    def is_back() -> bool:
        message = news.recv(4096)
        if struct.unpack_from("=H", message, 4)[0] != _NEW_ROUTE or socket.inet_aton(address) not in message:
            return False
        ip.communicate()
        news.close()
        return True

    return delete, is_back


def _program(host: Hosted) -> tuple[Callable[[], object], Callable[[], bool]]:
    """The link that attaches what judges a workload's packets."""
    path = _link(host)

    def detach() -> None:
        with held(syscalls.get(path)) as link:
            programs.detach(link)

    return detach, lambda: _is_attached(path)


def _pin(host: Hosted) -> tuple[Callable[[], object], Callable[[], bool]]:
    """The same, by removing the link's pin: nothing else holds it."""
    path = _link(host)
    return lambda: os.unlink(path), lambda: _is_attached(path)


def _link(host: Hosted) -> str:
    device = host.endpoint(VICTIM)["device"]
    return str(next((host.config.pin_root / "links").glob(f"{device}*")))


def _is_attached(path: str) -> bool:
    try:
        with held(syscalls.get(path)) as link:
            return programs.link_info(link).ifindex != 0
    except KernelError:
        return False
