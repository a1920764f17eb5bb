"""A converge that is killed at its n-th write, for every n; then a new start, and what that finds.

    python -m tests.e2e.dying_converge CONFIG OLD NEW FIRST STEP

One line of JSON for each n: FIRST, FIRST + STEP and so on, until a converge lives to its end. Children are forked from
one process that has everything loaded, so that a round takes a fraction of a second. Writes are system calls that
change something: bpf(2), netlink requests, files opened for writing, renamed or removed (pins, journal, sysctls).
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reconciler import config
from reconciler.bpf import syscalls
from reconciler.engine.render import mismatches
from reconciler.host import Host
from reconciler.kernel.netlink import Netlink

_CHANGING = {
    syscalls.MAP_UPDATE,
    syscalls.MAP_DELETE,
    syscalls.MAP_UPDATE_BATCH,
    syscalls.MAP_DELETE_BATCH,
    syscalls.OBJECT_PIN,
    syscalls.TEST_RUN,
    syscalls.LINK_CREATE,
    syscalls.LINK_UPDATE,
    syscalls.LINK_DETACH,
}


def die_at(number: int) -> None:
    """Before the `number`th write from now on this process kills itself."""
    writes = itertools.count(1)

    def step() -> None:
        if next(writes) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_event(event: str, arguments: tuple[Any, ...]) -> None:
        is_writing = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if is_writing or event in ("os.rename", "os.remove"):
            step()

    sys.addaudithook(on_event)
    call = syscalls._syscall

    def counted(number: int, command: int, *others: Any) -> Any:
        if command in _CHANGING:
            step()
        return call(number, command, *others)

    syscalls._syscall = counted  # type: ignore[assignment]
    Netlink.write = _before(step, Netlink.write)  # type: ignore[method-assign]
    Netlink.write_together = _before(step, Netlink.write_together)  # type: ignore[method-assign]


def _before(step: Callable[[], None], function: Callable[..., Any]) -> Callable[..., Any]:
    def both(*arguments: Any) -> Any:
        step()
        return function(*arguments)

    return both


def converge(settings: config.Config, commit: str, number: int = 0) -> bool:
    """In a child; whether it lived."""

    def work() -> None:
        with Host.open(settings) as host:
            host.recover()
            if number:
                die_at(number)
            host.converge(commit)

    return in_child(work)


def found(settings: config.Config, commits: tuple[str, str]) -> dict[str, Any]:
    """At a new start: the commit that the host is at, what differs from it, and whether something is unfinished."""
    with Host.open(settings) as host:
        before = host.journal.unfinished
        host.recover()
        (other,) = set(commits) - {host.base}
        host.target = host.aim(other)  # so that its namespaces are looked into as well
        left = host.compare(host.aim(host.base))
        return {
            "interrupted": before,
            "unfinished": host.journal.unfinished,
            "is_new": host.base == commits[1],
            "differences": mismatches(delta.inverse() for delta in left.deltas),
        }


def in_child(work: Callable[[], None]) -> bool:
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(1 if sys.exc_info()[0] else 0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a child failed")
    return os.WIFEXITED(status)


def main(path: str, old: str, new: str, first: str, step: str) -> None:
    settings = config.load(Path(path))
    for number in itertools.count(int(first), int(step)):
        converge(settings, old)
        lived = converge(settings, new, number)
        in_child(lambda n=number: print(json.dumps({"n": n, **found(settings, (old, new))}), flush=True))  # type: ignore[misc]
        if lived:
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
