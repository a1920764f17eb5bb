"""The namespace of this host's health endpoint: made before its rows are written, removed when no commit has one.

It is named after the pin root, so that hosts on one machine (a lab's) have one each.
"""

from __future__ import annotations

from pathlib import Path

from reconciler.bpf.bpffs import MOUNT_POINT
from reconciler.kernel import netns
from reconciler.model.health import NAMESPACE
from reconciler.model.snapshot import Snapshot

_DIRECTORY = Path("/run/netns")


def health_netns(pin_root: Path) -> str:
    """`/run/netns/plumb-alpha-health`, for the pins of `alpha` where they usually are."""
    below = pin_root.relative_to(MOUNT_POINT) if pin_root.is_relative_to(MOUNT_POINT) else pin_root
    return str(_DIRECTORY / f"{'-'.join(part for part in below.parts if part != '/')}-health")


def _has_health(snapshot: Snapshot, node: str) -> bool:
    """Asked before each repair, so not by looking at every workload."""
    return f"{NAMESPACE}/{node}" in snapshot.workloads


def prepare(snapshot: Snapshot, node: str, path: str) -> None:
    """The namespace is there where the commit has the node's endpoint. Raises KernelError."""
    if _has_health(snapshot, node) and netns.is_missing(path):
        netns.remove(path)  # what is left of one that was unmounted
        netns.create(path)


def clean(snapshot: Snapshot, node: str, path: str) -> None:
    """It is gone where the commit has none. Raises KernelError."""
    if not _has_health(snapshot, node):
        netns.remove(path)
