"""Who writes to our maps, links and hooks: the tracer of the bpf(2) system call as one of the daemon's ears.

It costs every system call on the host some 100 ns, so the configuration can turn it off; where the kernel lacks what it
needs the daemon goes without it and says so. Drift is found either way, only later and without a name.
"""

from __future__ import annotations

import asyncio
import logging

from reconciler.daemon.suspects import Suspect, Suspects
from reconciler.daemon.trigger import Trigger
from reconciler.errors import PlumbError
from reconciler.host.tables import WatchedMap
from reconciler.observe.drift import DriftTracer, Tamper, Target
from reconciler.observe.process import describe

log = logging.getLogger(__name__)

OF_HOOKS = frozenset(("attachments", "programs"))


class TamperWatch:
    """Owned by the daemon's event loop. `description` says whether drift is attributed, and why not."""

    def __init__(self, trigger: Trigger, suspects: Suspects, *, enabled: bool) -> None:
        self._trigger = trigger
        self._suspects = suspects
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

    def _on_tamper(self) -> None:
        if self._tracer is None:
            return
        for tamper in self._tracer.read():
            known = self._watched.get(tamper.target_id) if tamper.target is Target.MAP else None
            tables = known.tables if known else OF_HOOKS
            writer = describe(tamper.tgid, comm=tamper.comm, uid=tamper.uid, parent=tamper.parent)
            self._suspects.add(Suspect(tamper.time_ns, tables, writer))
            self._trigger.poke(_reason(tamper), *tables)


def _reason(tamper: Tamper) -> str:
    return f"{tamper.target.name.lower()} {tamper.target_id} {tamper.command.what} by pid {tamper.tgid}"
