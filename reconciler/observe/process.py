"""Who a process is: its command line, its user, and what started it, read from /proc while it is still there.

For one that has ended it depends on who remembers it (`DriftTracer.ended`).

Source of the formats: proc(5).
"""

from __future__ import annotations

import pwd
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_LONGEST_COMMAND = 200  # characters
_LONGEST_CHAIN = 4  # ancestors
_NO_USER = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Process:
    """`parents` goes from the nearest ancestor outwards: `bash(812)`, `sshd(790)`.

    Of a process that has ended only what the kernel gave is known; `ended` says so.
    """

    pid: int
    command: str
    user: str
    login_user: str = ""  # who logged in, where that is another one (sudo); '' if unknown
    parents: tuple[str, ...] = ()
    ended: bool = False

    def __str__(self) -> str:
        user = f"{self.user} (logged in as {self.login_user})" if self.login_user else self.user
        text = f"{self.command} (pid {self.pid}, {user})"
        if self.parents:
            text += " from " + " < ".join(self.parents)
        return text + " (ended)" if self.ended else text

    def to_json(self) -> dict[str, object]:
        return {
            "pid": self.pid,
            "command": self.command,
            "user": self.user,
            "login_user": self.login_user,
            "parents": list(self.parents),
            "ended": self.ended,
        }


@dataclass(frozen=True, slots=True)
class Ended:
    """What was noted of a process when it ended. `command`: its arguments, each with its zero, or empty."""

    comm: str
    command: bytes
    uid: int
    parent: int


Memory = Callable[[int], Ended | None]


def _forgotten(pid: int) -> None:
    return None


def describe(
    pid: int,
    *,
    comm: str = "",
    uid: int | None = None,
    parent: int = 0,
    ended: Memory = _forgotten,
    proc: Path = PROC,
) -> Process:
    """Who has this number. `comm`, `uid` and `parent`: what the kernel's event said, for one that has ended."""
    directory = proc / str(pid)
    try:
        name, started_by = _stat(directory)
        command = _command_line((directory / "cmdline").read_bytes())
        owner = _user(_effective_uid(directory) if uid is None else uid)
    except (OSError, ValueError):
        was = ended(pid) or Ended(comm, b"", _NO_USER, parent)
        return _described(pid, was, was.uid if uid is None else uid, parent or was.parent, ended, proc)
    if not command:  # a thread of the kernel, or one that has ended and waits for its parent
        last = ended(pid)
        command = _command_line(last.command) if last else ""
    login = _login_user(directory)
    return Process(pid, command or name, owner, "" if login == owner else login, _parents(started_by, ended, proc))


def _described(pid: int, was: Ended, uid: int, parent: int, ended: Memory, proc: Path) -> Process:
    command = _command_line(was.command) or was.comm or "?"
    user = "?" if uid == _NO_USER else _user(uid)
    return Process(pid, command, user, parents=_parents(parent, ended, proc), ended=True)


def _stat(directory: Path) -> tuple[str, int]:
    """Name and parent. The name stands in parentheses and may itself hold any character."""
    text = (directory / "stat").read_text(errors="replace")
    head, _, tail = text.rpartition(")")
    return head.partition("(")[2], int(tail.split()[1])


def _command_line(arguments: bytes) -> str:
    words = arguments.rstrip(b"\0").split(b"\0")
    text = " ".join(word.decode(errors="replace") for word in words)
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return printable if len(printable) <= _LONGEST_COMMAND else printable[: _LONGEST_COMMAND - 3] + "..."


def _effective_uid(directory: Path) -> int:
    for line in (directory / "status").read_text(errors="replace").splitlines():
        if line.startswith("Uid:"):
            return int(line.split()[2])
    raise ValueError(f"{directory}/status has no Uid line")


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _login_user(directory: Path) -> str:
    """Empty where the kernel keeps no audit sessions or nobody logged in."""
    try:
        uid = int((directory / "loginuid").read_text())
    except (OSError, ValueError):
        return ""
    return "" if uid == _NO_USER else _user(uid)


def _parents(pid: int, ended: Memory, proc: Path) -> tuple[str, ...]:
    chain: list[str] = []
    while pid > 0 and len(chain) < _LONGEST_CHAIN:
        try:
            name, parent = _stat(proc / str(pid))
        except (OSError, ValueError):
            if (was := ended(pid)) is None:
                break
            name, parent = was.comm, was.parent
        chain.append(f"{name}({pid})")
        pid = parent
    return tuple(chain)
