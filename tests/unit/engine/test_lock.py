"""One writer a host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.engine.lock import host_lock
from reconciler.errors import Busy

HOLD = """
import sys
from pathlib import Path
from reconciler.engine.lock import host_lock
with host_lock(Path(sys.argv[1]), "plumb daemon"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_who_holds_the_host_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run" / "lock"
    with (
        host_lock(path, "plumb apply"),
        pytest.raises(Busy, match=re.escape(f"held by plumb apply (pid {os.getpid()})")),
        host_lock(path, "plumb daemon"),
    ):
        pass


def test_the_lock_is_free_afterwards(tmp_path: Path) -> None:
    with host_lock(tmp_path / "lock", "plumb apply"):
        pass
    with host_lock(tmp_path / "lock", "plumb apply"):
        assert (tmp_path / "lock").read_text() == f"plumb apply (pid {os.getpid()})\n"
    assert (tmp_path / "lock").read_text() == ""


def test_a_killed_holder_frees_the_host(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Busy, match=rf"plumb daemon \(pid {holder.pid}\)"), host_lock(path, "plumb apply"):
            pass
        holder.kill()
    with host_lock(path, "plumb apply"):
        pass
