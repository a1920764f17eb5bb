"""What a host's fetch costs the side that has the repository: CPU time of git for one that lacks the newest commit."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.figures import Figure
from tests.e2e.daemon_host import policy

POLICIES, FETCHES = 1_000, 50
DEADLINE_S = 10.0
TICKS = os.sysconf("SC_CLK_TCK")
_AUTHOR = ("-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "gc.auto=0")


def measure() -> Iterator[Figure]:
    with TemporaryDirectory(prefix="pt-bench-") as name:
        folder = Path(name)
        tree, copies = folder / "tree", [folder / f"copy-{number}" for number in range(FETCHES)]
        tree.mkdir()
        _git(tree, "init", "-q", "-b", "main")
        for number in range(POLICIES):
            _write(tree, number, f"app{number}")
        _commit(tree)
        for copy in copies:
            _git(folder, "clone", "-q", "--bare", f"file://{tree}", str(copy))
        _write(tree, 0, "another")
        _commit(tree)
        with _serving(folder) as (daemon, url):
            began = time.monotonic()
            for copy in copies:
                _git(copy, "fetch", "-q", f"{url}/tree", "+main:main")
            yield Figure("fetch.one", (time.monotonic() - began) / FETCHES * 1e3, "ms")
            yield Figure("fetch.served.cpu", _cpu_s(daemon) / FETCHES * 1e3, "ms")


def _write(tree: Path, number: int, app: str) -> None:
    (tree / f"{number}.yaml").write_text(policy(f"p{number}", app, ingress=[]))


def _commit(tree: Path) -> None:
    _git(tree, "add", "-A")
    _git(tree, "commit", "-q", "-m", "bench")


@contextmanager
def _serving(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--export-all", f"--base-path={folder}", "--listen=127.0.0.1", f"--port={port}", "--reuseaddr"]
    with subprocess.Popen(["git", "daemon", *options]) as daemon:
        try:
            deadline = time.monotonic() + DEADLINE_S
            while subprocess.run(["git", "ls-remote", f"git://127.0.0.1:{port}/tree"], capture_output=True).returncode:
                assert time.monotonic() < deadline, "git daemon does not answer"
            yield daemon, f"git://127.0.0.1:{port}"
        finally:
            daemon.terminate()


def _cpu_s(daemon: subprocess.Popen[bytes]) -> float:
    """Of the daemon and the processes that have answered."""
    pids = subprocess.run(["pgrep", "-P", str(daemon.pid)], capture_output=True, text=True).stdout.split()
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in [str(daemon.pid), *pids]]
    return sum(int(one) for of_process in fields for one in of_process[11:15]) / TICKS  # proc(5): utime to cstime


def _git(where: Path, *arguments: str) -> None:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    subprocess.run(["git", *_AUTHOR, "-C", str(where), *arguments], check=True, env=environment)
