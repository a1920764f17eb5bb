"""What a lab has made on this machine, written down before each thing is made.

One JSON file a lab, `/run/plumb/labs/NAME.json`. Whatever a crash leaves behind is in it, so `plumb lab down` finds it;
and nothing that is not in it is ever removed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from reconciler.config import RUN_ROOT, Config
from reconciler.engine.lock import host_lock
from reconciler.errors import Busy, UsageError

LABS = RUN_ROOT / "labs"
_LOCK = LABS / "lock"
_LOCK_TIMEOUT_S = 60.0
_LOCK_PAUSE_S = 0.05


@dataclass(slots=True)
class Lab:
    """`namespaces`: paths that this lab made, those of hosts and underlay included.

    `directories`: run directories and pin roots that it made, removed with all that is in them. `socket_set`: it set
    the repository's `plumb.socket`. `ready`: it was made whole, and nobody has begun to remove it.
    """

    name: str
    repository: str
    ref: str
    hosts: dict[str, str] = field(default_factory=dict)  # node -> path of its namespace
    addresses: dict[str, list[str]] = field(default_factory=dict)  # node -> on the underlay, IPv4 and IPv6
    workloads: dict[str, str] = field(default_factory=dict)  # namespace/name -> path of its namespace
    etcd: list[str] = field(default_factory=list)  # URLs of its servers
    namespaces: list[str] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)
    socket_set: bool = False
    ready: bool = False

    def note(self, things: list[str], thing: str) -> None:
        """Remember that `thing` is about to be made."""
        if thing not in things:
            things.append(thing)
            self.save()

    def save(self) -> None:
        """Whole or not at all, whenever this process ends."""
        LABS.mkdir(parents=True, exist_ok=True)
        written = _path(self.name).with_suffix(".new")
        written.write_text(json.dumps(asdict(self), indent=2))
        os.replace(written, _path(self.name))

    def forget(self) -> None:
        _path(self.name).unlink(missing_ok=True)


def labs() -> list[Lab]:
    """Every lab on this machine, by name."""
    return [_read(path) for path in sorted(LABS.glob("*.json"))]


def find(name: str) -> Lab | None:
    return _read(_path(name)) if _path(name).exists() else None


def the(name: str | None, node: str | None = None) -> Lab:
    """The lab of that name; without a name the one that has the node, or the only one there is. Raises UsageError."""
    here = {lab.name: lab for lab in labs()}
    if name is None:
        of_node = [lab for lab in here.values() if node in lab.hosts]
        candidates = of_node or list(here.values())
        if len(candidates) == 1:
            return candidates[0]
    if name in here:
        return here[name]
    if name is None and here:
        raise UsageError(
            f"several labs are up: {', '.join(here)}",
            remedy="choose one: --name LAB, or a node of it: export PLUMB_NODE=NODE",
        )
    raise UsageError(f"no lab {name!r} is up" if name else "no lab is up", remedy="plumb lab up DIRECTORY")


def namespace_of(config: Config) -> str:
    """The namespace that a lab made for the node of this configuration, '' if no lab did."""
    for lab in labs():
        if config.node in lab.hosts and str(config.run_directory) in lab.directories:
            return lab.hosts[config.node]
    return ""


@contextmanager
def lab_lock() -> Iterator[None]:
    """One command at a time makes or removes labs; the others wait. Raises Busy when that takes too long."""
    with ExitStack() as stack:
        _take(stack, time.monotonic() + _LOCK_TIMEOUT_S)
        try:
            yield
        finally:
            if not list(LABS.glob("*.json")):
                _LOCK.unlink(missing_ok=True)
                remove_if_empty([LABS, RUN_ROOT])


def tidy() -> None:
    """Where no lab is up, nothing is left of the registry either, whoever was killed while holding the lock."""
    if LABS.exists():
        with lab_lock():
            pass


def _take(stack: ExitStack, deadline: float) -> None:
    """The file may be removed by its last holder while we open it: then what we hold is not what others will see."""
    while True:
        with ExitStack() as attempt:
            try:
                attempt.enter_context(host_lock(_LOCK, "plumb lab"))
                if f"(pid {os.getpid()})" in _LOCK.read_text():
                    stack.push(attempt.pop_all())
                    return
            except (Busy, FileNotFoundError):
                if time.monotonic() > deadline:
                    raise
        time.sleep(_LOCK_PAUSE_S)


def remove_if_empty(directories: list[Path]) -> None:
    for directory in directories:
        with suppress(OSError):  # somebody else's things are in it, or it is gone
            directory.rmdir()


def _path(name: str) -> Path:
    return LABS / f"{name}.json"


def _read(path: Path) -> Lab:
    try:
        return Lab(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"{path}: cannot be read: {error}", remedy="remove the file, and by hand what it named"
        ) from error
