"""The demo: it shows every act, and leaves nothing, whether it ends well, fails or is ended."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.lab.lifecycle import down
from reconciler.lab.registry import find

pytestmark = pytest.mark.root

CHECKOUT = Path(__file__).resolve().parents[2]
ACTS = 10
_numbers = itertools.count()


@pytest.fixture
def name() -> Iterator[str]:
    chosen = f"pt-{os.getpid()}-demo{next(_numbers)}"
    yield chosen
    if lab := find(chosen):
        down(lab, lambda line: None)
        pytest.fail("the demo left its lab")
    left = [*Path("/tmp").glob(f"plumb-{chosen}-*"), *Path("/run/netns").glob(f"{chosen}*")]
    assert left == []


def _demo(name: str, directory: Path, path: str = "") -> subprocess.Popen[str]:
    """Its temporary directory is made in the usual place; `path` comes before PATH."""
    return subprocess.Popen(
        [sys.executable, "-m", "reconciler.cli", "lab", "demo", "--name", name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "PATH": f"{path}:{os.environ['PATH']}", "TMPDIR": "/tmp"},
    )


def test_every_act_of_the_demo_proves_something(name: str, tmp_path: Path) -> None:
    process = _demo(name, tmp_path)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert output.count("\n   => ") == ACTS
    assert "nothing is left of it" in output


def test_an_act_that_fails_ends_the_demo_and_cleans_up(name: str, tmp_path: Path) -> None:
    tool = tmp_path / "bpftool"
    tool.write_text("#!/bin/sh\nexit 9\n")
    tool.chmod(0o755)
    process = _demo(name, tmp_path, path=str(tmp_path))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "bpftool -j map dump" in output.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_ended_cleans_up(name: str, tmp_path: Path, number: signal.Signals) -> None:
    process = _demo(name, tmp_path)
    deadline = time.monotonic() + 60
    while find(name) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
