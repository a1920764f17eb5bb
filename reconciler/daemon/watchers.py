"""The daemon's ears: netlink in every namespace it looks after, pins, the bpf(2) system call, namespaces, the branch.

Each only says what may be dirty and who may have done it; the pass that follows finds out what is.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from reconciler.daemon.mending import Mending
from reconciler.daemon.suspects import Suspect, Suspects
from reconciler.daemon.trigger import Trigger
from reconciler.errors import PlumbError
from reconciler.host.touched import GoneRow, Touched, TouchedNamespace, TouchedPin
from reconciler.kernel.netlink import own_ports
from reconciler.kernel.netlink_events import DIRTIES, EVERYTHING, NetlinkEvent, NetlinkEvents
from reconciler.kernel.netlink_writers import process_of
from reconciler.kernel.netns import is_missing
from reconciler.model.network import HOST_NETNS
from reconciler.observe.mounts import MountWatch
from reconciler.observe.pins import PinEvent, PinWatch, What
from reconciler.observe.process import Memory, Process, describe

log = logging.getLogger(__name__)

NAMESPACES = Path("/run/netns")
BY_ITSELF = frozenset(("addresses", "routes", "rules", "neighbours"))  # what can be put right before all else is read
ON_LINKS = frozenset(("attachments", "cgroups"))
ON_PINS = ON_LINKS | {"programs", "endpoints", "ipcache", "policy", "frontends", "services", "backends"}


class _Readable(Protocol):
    def fileno(self) -> int: ...


class Watchers:
    """Owned by the daemon's event loop. `close` ends all of them. `ended` remembers processes."""

    def __init__(self, trigger: Trigger, suspects: Suspects, mending: Mending, ended: Memory) -> None:
        self._loop = asyncio.get_running_loop()
        self._trigger = trigger
        self._suspects = suspects
        self._mending = mending
        self._ended = ended
        self._netlink: dict[str, NetlinkEvents] = {}
        self._pins: PinWatch | None = None
        self._directories: frozenset[Path] = frozenset()
        self._named: frozenset[str] = frozenset()
        self._cgroups: frozenset[Path] = frozenset()
        self._awaited: frozenset[str] = frozenset()
        self._told: set[str] = set()  # those of the awaited that were said to be there
        self._mounts = MountWatch()
        self._add(self._mounts, self._on_mounts)

    def close(self) -> None:
        for netns in list(self._netlink):
            self._forget(netns)
        if self._pins is not None:
            self._loop.remove_reader(self._pins.fileno())
            self._pins.close()
            self._pins = None
        self._loop.remove_reader(self._mounts.fileno())
        self._mounts.close()

    def listen_to(
        self,
        namespaces: Collection[str],
        pin_directories: Collection[Path],
        awaited: Collection[str] = (),
        cgroups: Collection[Path] = (),
    ) -> None:
        """Follow what is there now: called after each pass, cheap when nothing is new.

        `awaited`: those of the namespaces that were not there. `cgroups`: those that come and go.
        """
        self._cgroups = frozenset(cgroups)
        self._named, self._awaited = frozenset(namespaces), frozenset(awaited)
        for netns in list(self._netlink):
            if netns not in namespaces or self._netlink[netns].stale:
                self._forget(netns)
        for netns in namespaces:
            if netns not in self._netlink and netns not in self._awaited:
                self._subscribe(netns)
        above = {path.parent for path in self._cgroups}
        wanted = frozenset(one for one in (*pin_directories, NAMESPACES, *above) if one.is_dir())
        if wanted != self._directories or self._pins is None:
            self._watch_pins(wanted)
        self._look_for_awaited()

    def _subscribe(self, netns: str) -> None:
        try:
            events = NetlinkEvents(netns)
        except PlumbError as error:
            log.info("no netlink events netns=%s error=%s", netns or "host", error)
            return
        self._netlink[netns] = events
        self._add(events, lambda: self._on_netlink(netns, events))

    def _forget(self, netns: str) -> None:
        events = self._netlink.pop(netns)
        self._loop.remove_reader(events.fileno())
        events.close()

    def _watch_pins(self, directories: frozenset[Path]) -> None:
        if self._pins is not None:
            self._loop.remove_reader(self._pins.fileno())
            self._pins.close()
        self._pins = PinWatch(directories)
        self._directories = directories
        self._add(self._pins, self._on_pins)

    def _add(self, source: _Readable, callback: Callable[[], None]) -> None:
        self._loop.add_reader(source.fileno(), callback)

    def _on_netlink(self, netns: str, events: NetlinkEvents) -> None:
        ours = own_ports()
        for event in events.read():
            if event.port_id in ours:
                continue
            tables = DIRTIES[event.kind]
            identify = partial(_writer, event.pid, event.port_id, netns, self._ended)
            self._suspects.add(Suspect(time.monotonic_ns(), tables, identify, "netlink does not name the writer"))
            if event.kind in BY_ITSELF:
                self._mending.touch(_place(netns, event), event.summary, *tables)
            else:
                self._trigger.poke(event.summary, *tables)

    def _on_pins(self) -> None:
        if self._pins is None:
            return
        for event in self._pins.read():
            if event.what is What.LOST:
                self._trigger.poke("events of pins and namespaces were lost")
            elif event.directory == NAMESPACES:
                self._on_namespace(str(NAMESPACES / event.name), event)
            elif any(event.directory == path.parent for path in self._cgroups):
                if event.directory / event.name in self._cgroups:
                    self._trigger.poke(f"cgroup {event.name} {event.what.value}", "cgroups")
            elif not event.name.endswith("__new"):
                self._on_pin(event)

    def _on_pin(self, event: PinEvent) -> None:
        is_link, reason = event.directory.name == "links", f"pin {event.name} {event.what.value}"
        tables = ON_LINKS if is_link else ON_PINS
        self._suspects.add(Suspect(time.monotonic_ns(), tables, _nobody, "inotify does not name the writer"))
        if is_link:
            self._mending.touch(TouchedPin(event.name), reason, *tables)
        else:
            self._trigger.poke(reason, *tables)

    def _on_namespace(self, path: str, event: PinEvent) -> None:
        """Those that no commit names are other people's."""
        if path in self._awaited:  # a file is no namespace yet
            self._look_for_awaited()
        elif path in self._named:
            self._trigger.poke(f"namespace {event.name} {event.what.value}", *DIRTIES[EVERYTHING])

    def _on_mounts(self) -> None:
        self._mounts.read()
        self._look_for_awaited()

    def _look_for_awaited(self) -> None:
        there = set()
        for path in self._awaited:
            with suppress(PlumbError):  # the next pass says what is wrong with it
                if not is_missing(path):
                    there.add(path)
        for path in there - self._told:  # once: a host that is suspended goes on waiting
            self._trigger.poke(f"namespace {path} is there", *DIRTIES[EVERYTHING])
        self._told = there


def _place(netns: str, event: NetlinkEvent) -> Touched:
    return GoneRow("routes", event.gone) if event.gone else TouchedNamespace(netns, DIRTIES[event.kind])


def _nobody() -> None:
    return None


def _writer(pid: int | None, port_id: int, netns: str, ended: Memory) -> Process | None:
    if pid is not None:
        return describe(pid, ended=ended)
    found = process_of(port_id, netns or HOST_NETNS) if port_id else None
    return describe(found.pid, comm=found.command, uid=found.uid, ended=ended) if found else None
