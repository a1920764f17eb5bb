"""Processes of a lab: a daemon in each host's namespace, servers in the underlay, and what else was started inside.

The pid and the start time of what a lab starts are written by its own process before it becomes that: no crash of the
starter loses it, and a pid that was given to another process since is never signalled.
Source: proc(5), /proc/PID/stat fields 20 and 22; pidfd_open(2).
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from reconciler.config import Config
from reconciler.kernel import netns

PID_FILE = "lab.pid"
LOG_FILE = "log"
PATIENCE_S = 10.0
_LOG_LINES = 8
_START_TIME, _THREADS = 22 - 3, 20 - 3  # counted from what follows the name in brackets


def start_daemon(config: Config, namespace: str) -> subprocess.Popen[bytes]:
    """Returns at once."""
    options = ["--config", str(config.path), "--node", config.node]  # whatever PLUMB_NODE says here
    return start([sys.executable, "-m", "reconciler.cli", *options, "daemon"], namespace, config.run_directory)


def start(command: Sequence[str], namespace: str, directory: Path) -> subprocess.Popen[bytes]:
    """Returns at once; the process's output and its pid are kept in the directory."""
    with (directory / LOG_FILE).open("ab") as log, netns.inside(namespace):
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={**os.environ, "PYTHONPATH": _search_path()},
            start_new_session=True,
            preexec_fn=lambda: _write_own_pid(directory / PID_FILE),
        )


def end_of_log(directory: Path) -> str:
    lines = (directory / LOG_FILE).read_text(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-_LOG_LINES:])


def running(directory: Path) -> int | None:
    """The pid of what was started for this directory, None if it has ended."""
    try:
        pid, began = map(int, (directory / PID_FILE).read_text().split())
    except (OSError, ValueError):
        return None
    return pid if _start_time(pid) == began else None


def stop(pids: Iterable[int], patience_s: float = PATIENCE_S) -> None:
    """Asks them to end; those that have not done so in time are killed. Returns when all are gone."""
    handles = []
    for pid in pids:
        with suppress(ProcessLookupError):
            handles.append(os.pidfd_open(pid))
    for number, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, PATIENCE_S)):
        for handle in handles:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
        handles = _still_running(handles, time.monotonic() + wait_s)


def inside_any(namespaces: Iterable[str]) -> list[int]:
    """Processes in these network namespaces, but for this one and those it descends from."""
    wanted = {found for path in namespaces if (found := netns.identity(path))}
    spared = _ancestors()
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if pid not in spared and netns.identity(f"/proc/{pid}/ns/net") in wanted]


def _still_running(handles: list[int], deadline: float) -> list[int]:
    """Waits until the deadline; closes the handles of those that ended."""
    left = set(handles)
    poll = select.poll()
    for handle in left:
        poll.register(handle, select.POLLIN)
    while left and (wait_s := deadline - time.monotonic()) > 0:
        for handle, _ in poll.poll(wait_s * 1000):
            poll.unregister(handle)
            os.close(handle)
            left.discard(handle)
    return list(left)


def _ancestors() -> set[int]:
    found = set()
    pid = os.getpid()
    while pid:
        found.add(pid)
        pid = int(_stat(pid)[1])
    return found


def _start_time(pid: int) -> int | None:
    """In clock ticks since boot; None if there is no such process, or it is dead and only not yet waited for.

    While a thread of it is left its files and sockets are open, though the first one is dead already.
    """
    try:
        fields = _stat(pid)
    except OSError:
        return None
    is_dead = fields[0] == "Z" and int(fields[_THREADS]) <= 1
    return None if is_dead else int(fields[_START_TIME])


def _stat(pid: int) -> list[str]:
    """The fields from the third on: the name before them may hold blanks and brackets."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _write_own_pid(path: Path) -> None:
    path.write_text(f"{os.getpid()} {_start_time(os.getpid())}\n")


def _search_path() -> str:
    """Where this package was imported from: the daemon starts in another directory."""
    here = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
