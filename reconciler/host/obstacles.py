"""What stands in a plan's way and can be seen before anything is written: namespaces that went, foreign links.

Found only while writing, each try would take running workloads' links down and bring them back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.engine.change import DictDelta
from reconciler.engine.plan import Plan
from reconciler.errors import ApplyError, PlanStale
from reconciler.kernel import link_messages
from reconciler.kernel.link_messages import End
from reconciler.kernel.netlink import Netlink, doing
from reconciler.kernel.netns import is_missing
from reconciler.model.network import Link


def refuse_obstructed(plan: Plan) -> None:
    """Raises PlanStale if a namespace went since the plan was made; ApplyError naming the first foreign link.

    Raises KernelError if links cannot be read.
    """
    after = {delta.table: delta.after for delta in plan.deltas if isinstance(delta, DictDelta)}
    missing = sorted(path for path in _namespaces(after) if is_missing(path))
    if missing:
        raise PlanStale(
            f"there is no network namespace at {missing[0]}{_more(missing)} any more; nothing was changed",
            remedy="plan again: what needs it then waits for it",
        )
    links: Mapping[str, Link] = after.get("links", {})
    with doing("read links"):
        foreign = next(_foreign(links), None) if links else None
    if foreign:
        raise ApplyError(f"{foreign}; nothing was changed", remedy="remove it, or name another interface")


def _namespaces(after: Mapping[str, Mapping[Any, Any]]) -> set[str]:
    links: Mapping[str, Link] = after.get("links", {})
    named = {getattr(key, "netns", "") for rows in after.values() for key in rows}
    return (named | {link.peer.netns for link in links.values()}) - {""}


def _more(paths: list[str]) -> str:
    return f", nor at {len(paths) - 1} more" if len(paths) > 1 else ""


def _foreign(links: Mapping[str, Link]) -> Iterator[str]:
    with Netlink() as host:
        for name, link in links.items():
            end = link_messages.by_name(host, name)
            if end is not None and not end.ours:
                yield f"link {name} is there and is not ours"
            with Netlink(link.peer.netns) as workload:
                taken = link_messages.by_name(workload, link.peer.name)
            if taken is not None and not taken.ours and not _is_other_end(taken, end):
                yield f"link {link.peer.name} in {link.peer.netns} is there and is not ours"


def _is_other_end(taken: End, end: End | None) -> bool:
    """Of our own pair, on which only the mark is missing."""
    return end is not None and (taken.index, taken.peer_index) == (end.peer_index, end.index)
