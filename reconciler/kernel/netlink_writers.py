"""From a netlink port id to the process that wrote under it.

The kernel gives the first socket of a process the process's own number, libnl adds a counter above `PID_BITS`; further
sockets get arbitrary numbers above 2^31, which only /proc knows. Source: kernel net/netlink/af_netlink.c
(netlink_autobind), libnl lib/socket.c.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from reconciler.kernel.netlink import PID_BITS
from reconciler.kernel.netns import NamespaceMissing, inside
from reconciler.model.network import HOST_NETNS

ROUTE = 0  # NETLINK_ROUTE
SOCKETS = "/proc/thread-self/net/netlink"


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    command: str  # its arguments joined by blanks, or its name if it has none
    uid: int  # effective


def process_number(port_id: int) -> int | None:
    """The process that the number names by itself: that of a process's first socket. None if it names none."""
    return port_id if 0 < port_id < 1 << PID_BITS else None


def process_of(port_id: int, netns: str = HOST_NETNS) -> Process | None:
    """Who writes, or wrote last, under a port id in a namespace; None if it cannot be told or has ended.

    If the socket is closed by now the number is believed, though it is a guess for a process of another pid
    namespace. Milliseconds if the number is not the process: every descriptor of every process is looked at.
    """
    pid = process_number(port_id)
    bound = _bound_socket(port_id, netns)
    if bound is not None and (pid is None or bound not in _descriptors(pid)):
        pid = next((holder for holder in _processes() if bound in _descriptors(holder)), None)
    return None if pid is None else _process(pid)


def _bound_socket(port_id: int, netns: str) -> str | None:
    """The socket that has the port id now, as /proc/PID/fd shows it: `socket:[inode]`."""
    try:
        with inside(netns), open(SOCKETS, encoding="ascii") as opened:
            rows = [line.split() for line in opened.readlines()[1:]]
    except (OSError, NamespaceMissing):
        return None
    return next((f"socket:[{row[9]}]" for row in rows if int(row[1]) == ROUTE and int(row[2]) == port_id), None)


def _processes() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _descriptors(pid: int) -> Iterator[str]:
    """What each descriptor of a process is."""
    with suppress(OSError):  # it ended meanwhile
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):  # it closed this one meanwhile
                yield os.readlink(f"/proc/{pid}/fd/{name}")


def _process(pid: int) -> Process | None:
    place = Path("/proc", str(pid))
    try:
        arguments = (place / "cmdline").read_bytes().rstrip(b"\0")
        command = arguments.replace(b"\0", b" ") or (place / "comm").read_bytes().rstrip(b"\n")
        return Process(pid, command.decode(errors="replace"), place.stat().st_uid)
    except OSError:
        return None
