"""Sysctls as a table over /proc/sys.

A sysctl has no owner: live rows are the current values of those that are named. One that is deleted keeps its value,
as nobody knows what it was before us, and is no row until it is written again. What
/proc/sys/net shows depends on the namespace of the thread that opens it. Source: kernel net/sysctl_net.c.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from reconciler.engine.rows import DictRows, Key
from reconciler.engine.table import Flip
from reconciler.errors import KernelError
from reconciler.kernel.netlink import doing
from reconciler.kernel.netns import NamespaceMissing, inside, refuse_own
from reconciler.model.network import Sysctl, SysctlKey

ROOT = Path("/proc/sys")


class SysctlsTable:
    """`names` tells, at each read, which sysctls to show."""

    name = "sysctls"
    after: tuple[str, ...] = ("links", "overlays")
    key_type: type = SysctlKey
    row_type: type = Sysctl
    flip: Flip | None = None

    def __init__(self, names: Callable[[], Iterable[SysctlKey]]) -> None:
        self._names = names
        self._given_up: set[Key] = set()

    def live(self, only: Collection[Any] | None = None) -> DictRows:
        """Values with white space as single blanks; one whose link or namespace is missing is not there."""
        rows: dict[Key, Sysctl] = {}
        for netns, keys in _by_namespace(self._names() if only is None else only).items():
            try:
                with doing("read sysctls", netns), inside(netns):
                    rows.update(_read(keys))
            except NamespaceMissing:
                continue
        return DictRows({key: row for key, row in rows.items() if key not in self._given_up})

    def write(self, upserts: Mapping[Any, Sysctl], deletes: Collection[Any]) -> None:
        """Raises KernelError: no such sysctl (often: no such link), or a value that the kernel refuses."""
        self._given_up = (self._given_up | set(deletes)) - upserts.keys()
        for netns, keys in _by_namespace(upserts).items():
            refuse_own(netns)
            with inside(netns):
                for key in keys:
                    with doing(f"set {key.name} to {upserts[key].value!r}", netns):
                        _write(_path(key.name), upserts[key].value)


def _read(keys: Iterable[SysctlKey]) -> Iterable[tuple[SysctlKey, Sysctl]]:
    for key in keys:
        try:
            with open(_path(key.name), encoding="ascii", errors="replace") as opened:
                yield key, Sysctl(" ".join(opened.read().split()))
        except FileNotFoundError:
            continue


def _write(path: Path, value: str) -> None:
    opened = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(opened, value.encode() + b"\n")  # of no bytes at all the kernel hears nothing
    finally:
        os.close(opened)


def _path(name: str) -> Path:
    """Names come out of a policy repository: they must not lead out of /proc/sys."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts:
        raise KernelError(f"{name!r} is not the name of a sysctl (net/ipv4/ip_forward)")
    return ROOT.joinpath(*parts)


def _by_namespace(keys: Iterable[SysctlKey]) -> dict[str, list[SysctlKey]]:
    grouped: dict[str, list[SysctlKey]] = {}
    for key in keys:
        grouped.setdefault(key.netns, []).append(key)
    return grouped
