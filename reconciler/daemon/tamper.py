"""Who writes to our maps, links and hooks: the tracer of the bpf(2) system call as one of the daemon's ears.

It costs every system call on the host some 100 ns, so the configuration can turn it off; where the kernel lacks what it
needs the daemon goes without it and says so. Drift is found either way, only later and without a name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from reconciler.daemon.mending import Mending
from reconciler.daemon.suspects import Suspect, Suspects
from reconciler.daemon.trigger import Trigger
from reconciler.errors import PlumbError
from reconciler.host.tables import WatchedMap
from reconciler.host.touched import Touched, TouchedLink, TouchedMap
from reconciler.observe.drift import DriftTracer, Tamper, Target
from reconciler.observe.process import Ended, Process, describe

log = logging.getLogger(__name__)

ON_LINKS = frozenset(("attachments", "cgroups", "programs"))


class TamperWatch:
    """Owned by the daemon's event loop. `description` says whether drift is attributed, and why not.

    `is_our_link` tells by the id of a link whether it attaches a program of ours.
    """

    def __init__(
        self,
        trigger: Trigger,
        suspects: Suspects,
        mending: Mending,
        is_our_link: Callable[[int], bool],
        *,
        enabled: bool,
    ) -> None:
        self._trigger = trigger
        self._suspects = suspects
        self._mending = mending
        self._is_our_link = is_our_link
        self._tracer: DriftTracer | None = None
        self._watched: dict[int, WatchedMap] = {}
        self.description = "on" if enabled else "off: attribute_drift is false in this host's configuration"
        if enabled:
            self._start()

    def _start(self) -> None:
        try:
            self._tracer = DriftTracer({})
        except PlumbError as error:
            self.description = f"off: {error}"
            log.warning("drift is not attributed reason=%s", error)
            return
        asyncio.get_running_loop().add_reader(self._tracer.fileno(), self._on_tamper)

    def watch(self, watched: dict[int, WatchedMap]) -> None:
        """Exactly these maps from now on, by id."""
        if self._tracer is not None and watched != self._watched:
            self._tracer.watch({number: map_.key_size for number, map_ in watched.items()})
            self._watched = watched

    def close(self) -> None:
        if self._tracer is not None:
            asyncio.get_running_loop().remove_reader(self._tracer.fileno())
            self._tracer.close()
            self._tracer = None

    def attribution(self) -> str:
        """`on` or why not; and how many changes went by unseen, because too many came at once."""
        lost = self._tracer.lost() if self._tracer is not None else 0
        return f"{self.description}, {lost} changes lost" if lost else self.description

    def ended(self, pid: int) -> Ended | None:
        """Who had this number, if it ended lately and the tracer was there. Any thread may ask."""
        return self._tracer.ended(pid) if self._tracer is not None else None

    def _on_tamper(self) -> None:
        if self._tracer is None:
            return
        for tamper in self._tracer.read():
            tables = self._touched(tamper)
            if tables:
                self._suspects.add(Suspect(tamper.time_ns, tables, partial(self._writer, tamper)))
                if (place := _place(tamper)) is None:
                    self._trigger.poke(_reason(tamper), *tables)
                else:
                    self._mending.touch(place, _reason(tamper), *tables)

    def _touched(self, tamper: Tamper) -> frozenset[str]:
        """The tables whose rows are in question. Programs that others attach beside ours are their own affair."""
        if tamper.target is Target.MAP:
            known = self._watched.get(tamper.target_id)
            return known.tables if known else frozenset()
        is_ours = tamper.target is Target.LINK and self._is_our_link(tamper.target_id)
        return ON_LINKS if is_ours else frozenset()

    def _writer(self, tamper: Tamper) -> Process:
        return describe(tamper.tgid, comm=tamper.comm, uid=tamper.uid, parent=tamper.parent, ended=self.ended)


def _place(tamper: Tamper) -> Touched | None:
    """Which row it was, if the call named one."""
    if tamper.target is Target.LINK:
        return TouchedLink(tamper.target_id)
    return TouchedMap(tamper.target_id, tamper.key) if tamper.key else None


def _reason(tamper: Tamper) -> str:
    return f"{tamper.target.name.lower()} {tamper.target_id} {tamper.command.what} by pid {tamper.tgid}"
