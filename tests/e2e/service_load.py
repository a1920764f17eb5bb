"""A service under load: its backends and its clients as processes, and which connections may fail when backends die.

`load_backends` and `load_clients` are the two ends. A connection may fail only if
* it was with a backend when that was killed,
* a backend refused or reset it that was dead and, as no commit had come yet, still in the table,
* it was being made while its backend died, or while the commit took a backend out, so that its first packet or the
  answer to that was lost. By packet, another backend has the second one; at the socket, the backend was chosen before.
  A backend that dies loses all of these, and no more than clients begin at once; a commit hardly any.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

from tests.e2e.daemon_host import CHECKOUT, until
from tests.e2e.load_backends import UNTOLD
from tests.e2e.load_clients import AT_ONCE, Failure

PATIENCE_S = 60.0
NUMBERS = 1 << 28  # of connections, for each process of clients
MAKING_S = 1.0  # after this a first packet is sent again (TCP_TIMEOUT_INIT): none that was not takes longer
LOST_AT_FIRST = 0.25  # for each commit: its moment is microseconds long
_REFUSED, _RESET = "ECONNREFUSED", "ECONNRESET"


@dataclass(frozen=True, slots=True)
class Kill:
    """`connections`: numbers of those that the backend had when it died, between `began` and `ended` on the clock.

    `in_table`: it died at `began`, before the commit took it out.
    """

    name: str
    connections: tuple[int, ...]
    began: float
    ended: float
    in_table: bool

    def met(self, failure: Failure) -> bool:
        return failure.began <= self.ended and self.began <= failure.ended

    def explains(self, failure: Failure, slowest_s: float) -> bool:
        by_dead = self.in_table and failure.what in (_REFUSED, _RESET) and not failure.backend and self.met(failure)
        lost = _is_lost_at_first(failure) and self.saw(failure.began, slowest_s)
        return by_dead or lost or failure.number in self.connections

    def saw(self, moment: float, slowest_s: float) -> bool:
        """Whether a connection that began then may have been in the making."""
        return self.began - slowest_s <= moment <= self.ended


def _is_lost_at_first(failure: Failure) -> bool:
    return not failure.made and failure.what != _REFUSED


class Backends:
    """Use it by `backends`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def open(self, name: str) -> None:
        self._ask(f"open {name}")

    def kill(self, name: str) -> tuple[int, ...]:
        """Numbers of the connections that it had."""
        return tuple(self._ask(f"kill {name}"))

    def until_answered(self, more: int) -> None:
        """Until so many more questions were answered."""
        before = self._ask("count")
        until(lambda: self._ask("count") > before + more, f"{more} more answers")

    def _ask(self, line: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


class Clients:
    """Use it by `clients`; `tally` is what became of them, once the block has ended."""

    def __init__(self, process: subprocess.Popen[str], rate: int) -> None:
        self._process = process
        self.rate = rate
        self.tally: dict[str, Any] = {}

    def gone(self, name: str) -> None:
        """A backend is dead: its lasting connections are made anew."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"gone {name}\n")
        self._process.stdin.flush()

    def end(self) -> None:
        said, _ = self._process.communicate("end\n", timeout=PATIENCE_S)
        self.tally = json.loads(said)

    @property
    def failures(self) -> list[Failure]:
        return [Failure(**one) for one in self.tally["failures"]]

    @property
    def lost_at_first(self) -> list[float]:
        """When connections began whose first packet, or the answer to it, was lost."""
        return [*self.tally["asked_twice"], *(one.began for one in self.failures if _is_lost_at_first(one))]


@contextmanager
def backends(port: int, namespaces: Mapping[str, str]) -> Iterator[Backends]:
    """Name -> its namespace; none of them listens yet."""
    places = [f"{name}={path}" for name, path in namespaces.items()]
    with _running([sys.executable, "-m", "tests.e2e.load_backends", str(port), *places]) as process:
        yield Backends(process)


@contextmanager
def clients(
    namespace: str, places: Sequence[tuple[str, int]], *, rate: int, lasting: int, cgroup: str = "", first: int = 1
) -> Iterator[Clients]:
    """In a namespace, and in a cgroup (its folder) if one is given."""
    enter = f"echo $$ > {cgroup}/cgroup.procs && " if cgroup else ""
    addresses = " ".join(chain.from_iterable((address, str(port)) for address, port in places))
    command = f"{sys.executable} -m tests.e2e.load_clients {first} {rate} {lasting} {addresses}"
    with _running(["sh", "-c", f"{enter}exec nsenter --net={namespace} {command}"]) as process:
        found = Clients(process, rate)
        yield found
        found.end()


@contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def assert_explained(load: Clients, kills: Sequence[Kill]) -> None:
    """Only what may fail did, and little of it was lost at the moment of a commit."""
    made, done, failed = load.tally["made"], load.tally["done"], load.failures
    slowest_s = min(load.tally["slowest"], MAKING_S)
    assert not (left := unexplained(failed, kills, slowest_s)), left
    seen = [(one, [kill for kill in kills if kill.saw(one, slowest_s)]) for one in load.lost_at_first]
    assert not (told := [_told(moment, kills) for moment, by in seen if not by]), told
    by_dead = [moment for moment, by in seen if any(kill.in_table for kill in by)]
    assert len(by_dead) <= sum(kill.in_table for kill in kills) * AT_ONCE, f"{len(by_dead)} were lost by the dead"
    by_commits = len(seen) - len(by_dead)
    assert by_commits <= len(kills) * LOST_AT_FIRST, f"{by_commits} first packets were lost"
    assert made == done + sum(not failure.lasting for failure in failed), f"{made} were made, {done} are done"
    assert made > load.rate * load.tally["seconds"] / 4, "the load was too light to say anything"


def _told(moment: float, kills: Sequence[Kill]) -> str:
    """Where it is among them."""
    nearest = min(kills, key=lambda kill: abs(moment - kill.ended), default=None)
    return f"{moment - nearest.ended:+.3f} s from {nearest}" if nearest else "a first packet was lost"


def unexplained(failures: Sequence[Failure], kills: Sequence[Kill], slowest_s: float) -> list[Failure]:
    """A connection that had not said its number yet stands for one failure without an answer at that time."""
    left = [one for one in failures if not any(kill.explains(one, slowest_s) for kill in kills)]
    for kill in kills:
        unknown = [one for one in left if not one.backend and kill.met(one)]
        for one in unknown[: kill.connections.count(UNTOLD)]:
            left.remove(one)
    return left
