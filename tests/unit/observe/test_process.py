"""Who a process is."""

import os
import subprocess
import sys
from pathlib import Path

from reconciler.observe.process import Ended, Process, describe


def test_a_running_process_has_its_command_line_user_and_parents() -> None:
    program = "print(flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", program, "a word"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout
    child.stdout.readline()  # it runs
    try:
        process = describe(child.pid)
    finally:
        child.communicate(b"\n")
    assert process.command == f"{sys.executable} -c {program} a word"
    assert process.user == subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()
    assert process.parents[0].endswith(f"({os.getpid()})")
    assert not process.ended


def test_a_process_that_has_ended_keeps_what_the_kernel_said() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    process = describe(child.pid, comm="true", uid=0)
    assert process == Process(child.pid, "true", "root", ended=True)
    assert str(process) == f"true (pid {child.pid}, root) (ended)"


def test_a_process_that_has_ended_is_known_by_who_started_it() -> None:
    process = describe(2**22 + 1, comm="bpftool", uid=0, parent=os.getpid())
    assert process.ended
    assert process.parents[0].endswith(f"({os.getpid()})")


def test_a_process_that_has_ended_is_what_somebody_remembers_of_it(tmp_path: Path) -> None:
    ended = {7: Ended("ip", b"ip\0route\0del\0", 0, 6), 6: Ended("bash", b"", 0, 5)}
    process = describe(7, ended=ended.get, proc=tmp_path)
    assert process == Process(7, "ip route del", "root", parents=("bash(6)",), ended=True)
    assert describe(6, ended=ended.get, proc=tmp_path).command == "bash"
    assert describe(8, ended=ended.get, proc=tmp_path) == Process(8, "?", "?", ended=True)


def test_a_process_that_waits_for_its_parent_is_what_somebody_remembers_of_it() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    remembered = Ended("true", b"true\0--now\0", 0, os.getpid())
    assert describe(child.pid, ended={child.pid: remembered}.get).command == "true --now"
    assert describe(child.pid).command == "true"
    child.wait()


def test_a_name_with_parentheses_and_blanks_is_read_whole(tmp_path: Path) -> None:
    directory = tmp_path / "7"
    directory.mkdir()
    (directory / "stat").write_text("7 (a) b) S 0 7 7")
    (directory / "cmdline").write_bytes(b"")
    (directory / "status").write_text("Name:\ta\nUid:\t0\t0\t0\t0\n")
    assert describe(7, proc=tmp_path).command == "a) b"


def test_a_command_line_is_cut_and_made_printable(tmp_path: Path) -> None:
    directory = tmp_path / "7"
    directory.mkdir()
    (directory / "stat").write_text("7 (x) S 0 7 7")
    (directory / "cmdline").write_bytes(b"x\0\x1b[31m\n" + b"y" * 500 + b"\0")
    (directory / "status").write_text("Uid:\t0\t0\t0\t0\n")
    command = describe(7, proc=tmp_path).command
    assert command.startswith("x ?[31m?yyy")
    assert len(command) == 200
