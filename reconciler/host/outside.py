"""The devices of this host that face the outside, as a commit means them."""

from __future__ import annotations

from reconciler.host.facts import this_node
from reconciler.kernel.node_devices import node_devices
from reconciler.model.facts import Facts
from reconciler.model.outside import NodeDevice
from reconciler.model.snapshot import Snapshot, Warning


def facing_outside(snapshot: Snapshot, node: str) -> dict[str, NodeDevice]:
    """name -> device, of those that are there. Raises CompileError, KernelError."""
    here = this_node(snapshot, node)
    return node_devices(here.devices, [one for one in (here.address4, here.address6) if one is not None])


def absent_devices(snapshot: Snapshot, facts: Facts) -> tuple[Warning, ...]:
    """A warning for each device that the Node names and this host does not have."""
    here = this_node(snapshot, facts.node)
    return tuple(
        Warning(here.origin.path, here.origin.line, 1, f"{here.name} has no Ethernet device {name}: nothing guards it")
        for name in here.devices
        if name not in facts.devices
    )
