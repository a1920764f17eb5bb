"""Clients under load, in one process: connections that talk all the time, beside many that ask once.

    python -m tests.e2e.load_clients FIRST RATE LASTING ADDRESS PORT [ADDRESS PORT...]

RATE connections a second ask one question each, and LASTING ones ask again and again, every other one of them until it
has had LIFE answers and another one follows. Each kind goes to all addresses in turns; all are numbered from FIRST on.
What is due is begun, however late it is. Who asked once ends by a reset, so that its port is used again soon: all have
the ports PORTS of this namespace.

Lines of stdin: `gone NAME` closes the lasting connections of a backend that was killed, and makes others; `end` lets
all come to their end, and prints what became of them, as JSON (`Tally`).
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import resource
import select
import socket
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.e2e.load_backends import ANSWER_BYTES, MESSAGE, RESET

PAUSE_S = 0.05  # between an answer and the next question of a lasting connection
LIFE = 100
PORTS = "40000 43999"
PATIENCE_S = 20.0  # without an answer for so long, a connection is lost
SWEEP_S = 0.5
AT_ONCE = 64  # connections begun before answers are looked at
TICK_S = 0.001
_TOTAL_RETRANS = 100  # offset in struct tcp_info (linux/tcp.h)
_CONNECTING, _ASKED, _PAUSED = range(3)


@dataclass(slots=True)
class Failure:
    """`what`: the connection could not be made, broke, got no answer, or got one of somebody else. `made`: whether it
    was there at all.
    """

    number: int
    lasting: bool
    made: bool
    what: str
    backend: str
    began: float
    ended: float


@dataclass(slots=True)
class Tally:
    """`oldest`: answers to the lasting connection with most of them; `asked_twice`: when those connections began whose
    first packet, or the answer to it, was lost; `slowest`: seconds that another one took until it was made.
    """

    made: int = 0
    done: int = 0
    seconds: float = 0.0
    oldest: int = 0
    slowest: float = 0.0
    asked_twice: list[float] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    by_backend: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Connection:
    number: int
    socket: socket.socket
    lasting: bool
    began: float
    since: float  # when it was last heard of
    state: int = _CONNECTING
    turn: int = 0
    backend: str = ""


class Clients:
    def __init__(self, first: int, rate: float, lasting: int, places: Sequence[tuple[str, int]]) -> None:
        self._rate, self._lasting = rate, lasting
        self._places = itertools.cycle(places)
        self._numbers = itertools.count(first)
        self._poll = select.epoll()
        self._poll.register(sys.stdin, select.EPOLLIN)
        self._open: dict[int, Connection] = {}
        self._paused: list[Connection] = []  # in the order in which they are due
        self._ending = False
        self.tally = Tally()

    def run(self) -> Tally:
        began = swept = time.monotonic()
        while not self._ending or self._open:
            now = time.monotonic()
            if not self._ending:
                self._begin_what_is_due(now - began)
            self._ask_again(now)
            if now > swept + SWEEP_S:
                swept = now
                self._give_up(now)
            for descriptor, event in self._poll.poll(TICK_S):
                self._take(descriptor, event)
        return self.tally

    def _begin_what_is_due(self, seconds: float) -> None:
        for _ in range(self._lasting - sum(one.lasting for one in self._open.values())):
            self._begin(True)
        due = min(int(seconds * self._rate) - self.tally.made, AT_ONCE)
        for _ in range(due):
            self._begin(False)
        self.tally.made += max(due, 0)
        self.tally.seconds = seconds

    def _take(self, descriptor: int, event: int) -> None:
        if descriptor == sys.stdin.fileno():
            self._obey(*sys.stdin.readline().split())
        elif one := self._open.get(descriptor):
            try:
                self._go_on(one, event)
            except OSError as error:
                self._fail(one, _named(error.errno or 0))

    def _obey(self, what: str = "end", name: str = "") -> None:
        if what == "end":
            self._ending = True
            self._poll.unregister(sys.stdin)
            return
        for one in [one for one in self._open.values() if one.lasting and one.backend == name]:
            self._close(one)

    # One connection

    def _begin(self, lasting: bool) -> None:
        address, port = next(self._places)
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        now = time.monotonic()
        one = self._open[made.fileno()] = Connection(next(self._numbers), made, lasting, now, now)
        self._poll.register(made, select.EPOLLOUT)
        if (error := made.connect_ex((address, port))) != errno.EINPROGRESS:
            self._fail(one, _named(error))

    def _go_on(self, one: Connection, event: int) -> None:
        if one.state == _CONNECTING:
            self._connected(one)
        elif event & select.EPOLLIN or event & select.EPOLLERR or event & select.EPOLLHUP:
            self._answered(one, one.socket.recv(64))

    def _connected(self, one: Connection) -> None:
        if error := one.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, os.strerror(error))
        about = one.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TOTAL_RETRANS + 4)
        if struct.unpack_from("=I", about, _TOTAL_RETRANS)[0]:
            self.tally.asked_twice.append(one.began)
        else:
            self.tally.slowest = max(self.tally.slowest, time.monotonic() - one.began)
        self._poll.modify(one.socket, select.EPOLLIN)
        self._ask(one)

    def _ask(self, one: Connection) -> None:
        one.state = _ASKED
        one.turn += 1
        one.since = time.monotonic()
        one.socket.send(MESSAGE.pack(one.number, one.turn))

    def _answered(self, one: Connection, answer: bytes) -> None:
        name = answer[MESSAGE.size :].decode().strip()
        if one.state == _PAUSED or len(answer) != ANSWER_BYTES:
            self._fail(one, f"{len(answer)} bytes, not an answer")
        elif MESSAGE.unpack(answer[: MESSAGE.size]) != (one.number, one.turn) or name != (one.backend or name):
            self._fail(one, f"an answer of {name} to another question")
        elif one.lasting:
            one.backend = name
            self._pause(one)
        else:
            self.tally.done += 1
            self.tally.by_backend[name] = self.tally.by_backend.get(name, 0) + 1
            one.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._close(one)

    def _pause(self, one: Connection) -> None:
        """Until its next question, if it has one."""
        self.tally.oldest = max(self.tally.oldest, one.turn)
        one.state, one.since = _PAUSED, time.monotonic()
        if not self._ending and (one.number % 2 == 0 or one.turn < LIFE):
            self._paused.append(one)
        else:
            self._close(one)

    def _ask_again(self, now: float) -> None:
        """All paused ones when the end has come: each must answer once more."""
        while self._paused and (self._ending or self._paused[0].since + PAUSE_S < now):
            one = self._paused.pop(0)
            if self._open.get(one.socket.fileno()) is one:
                try:
                    self._ask(one)
                except OSError as error:
                    self._fail(one, _named(error.errno or 0))

    def _give_up(self, now: float) -> None:
        for one in list(self._open.values()):
            if one.state != _PAUSED and one.since + PATIENCE_S < now:
                self._fail(one, "no answer" if one.state == _ASKED else "no connection")

    def _fail(self, one: Connection, what: str) -> None:
        made = one.state != _CONNECTING
        failure = Failure(one.number, one.lasting, made, what, one.backend, one.began, time.monotonic())
        self.tally.failures.append(failure)
        self._close(one)

    def _close(self, one: Connection) -> None:
        del self._open[one.socket.fileno()]
        one.socket.close()


def _named(error: int) -> str:
    return errno.errorcode.get(error, str(error))


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(PORTS)
    first, rate, lasting, *places = sys.argv[1:]
    pairs = [(address, int(port)) for address, port in zip(places[::2], places[1::2], strict=True)]
    print(json.dumps(asdict(Clients(int(first), float(rate), int(lasting), pairs).run())))


if __name__ == "__main__":
    main()
