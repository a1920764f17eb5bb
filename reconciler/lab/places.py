"""Names of places in a lab, for running commands there: a node, a workload, or `outside`."""

from __future__ import annotations

from reconciler.errors import UsageError
from reconciler.lab.registry import Lab

OUTSIDE = "outside"


def namespace(lab: Lab, place: str) -> str:
    """The path of the network namespace of a node, of a workload (namespace/name or name), or of the underlay.

    Raises UsageError when there is none, or more than one.
    """
    outside = {path for path in lab.namespaces if path.endswith("_underlay")}
    nodes = {path for node, path in lab.hosts.items() if node == place}
    workloads = {path for name, path in lab.workloads.items() if place in (name, name.rpartition("/")[2])}
    found = nodes | workloads | (outside if place == OUTSIDE else set())
    if len(found) == 1:
        return found.pop()
    if found:
        raise UsageError(f"{place} is more than one place in lab {lab.name}", remedy="say a workload as namespace/name")
    there = ", ".join([*sorted(lab.hosts), *sorted(lab.workloads), OUTSIDE])
    raise UsageError(f"there is no {place} in lab {lab.name}", remedy=f"there are {there}")
