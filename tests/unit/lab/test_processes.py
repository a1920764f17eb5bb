"""Which process is the daemon of a directory, and how processes end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reconciler.lab.processes import PID_FILE, _start_time, inside_any, running, stop

_HEADLESS = """
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
ctypes.CDLL(None).pthread_exit(None)
"""
_STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"


def test_a_process_is_known_by_its_pid_and_its_start(tmp_path: Path) -> None:
    (tmp_path / PID_FILE).write_text(f"{os.getpid()} {_start_time(os.getpid())}\n")
    assert running(tmp_path) == os.getpid()


def test_a_pid_that_was_given_to_another_process_is_not_the_daemons(tmp_path: Path) -> None:
    (tmp_path / PID_FILE).write_text(f"{os.getpid()} 1\n")
    assert running(tmp_path) is None


@pytest.mark.parametrize("content", ["", "x y", "12"])
def test_a_pid_file_that_was_cut_short_names_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / PID_FILE).write_text(content)
    assert running(tmp_path) is None


def test_stopping_waits_until_the_process_is_gone_and_forgives_one_that_was() -> None:
    process = subprocess.Popen(["sleep", "60"])
    stop([process.pid])
    assert process.poll() == -signal.SIGTERM
    stop([process.pid])


def test_a_process_that_does_not_end_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", _STUBBORN], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        stop([process.pid], patience_s=0.2)
        assert process.wait(10) == -signal.SIGKILL


def test_a_process_lives_while_a_thread_of_it_does() -> None:
    with subprocess.Popen([sys.executable, "-c", _HEADLESS], stdin=subprocess.PIPE) as process:
        status = Path(f"/proc/{process.pid}/status")
        deadline = time.monotonic() + 10
        while "Z (zombie)" not in status.read_text():
            assert time.monotonic() < deadline
        assert _start_time(process.pid)
        assert process.stdin
        process.stdin.close()
        while _start_time(process.pid):
            assert time.monotonic() < deadline


def test_this_process_is_spared_where_everybody_in_a_namespace_ends() -> None:
    assert os.getpid() not in inside_any(["/proc/self/ns/net"])
