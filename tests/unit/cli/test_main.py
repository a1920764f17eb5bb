"""How `plumb` begins and ends: help, exit codes, errors on standard error, nothing imported without need."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from reconciler import __version__
from reconciler.cli.main import root
from tests.unit.cli.plumb import CHECKOUT, plumb

HEAVY = {"numpy", "pyroute2", "jsonschema", "yaml", "git", "http.client", "asyncio", "subprocess"}


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    context = click.Context(group)
    found: list[tuple[str, ...]] = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        found += [(*path, name)]
        found += _commands(command, (*path, name)) if isinstance(command, click.Group) else []
    return found


def _command(path: tuple[str, ...]) -> click.Command:
    command: click.Command = root
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found
        command = found
    return command


def test_the_version_is_printed_and_nothing_heavy_is_imported_for_it() -> None:
    program = (
        "import sys; from reconciler.cli.main import main; main(['version']);"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(CHECKOUT)}
    )
    assert result.stdout.splitlines() == [f"plumb {__version__}", "[]"]


@pytest.mark.parametrize("path", [path for path in _commands(root) if len(path) == 1], ids=" ".join)
def test_every_command_is_called_as_it_is_listed_and_shows_examples(path: tuple[str, ...]) -> None:
    command = _command(path)
    assert command.name == path[0]
    assert path == ("version",) or "Examples:" in (command.help or "")


@pytest.mark.parametrize("path", _commands(root), ids=" ".join)
def test_every_command_has_a_help_text_that_ends_its_first_sentence(path: tuple[str, ...]) -> None:
    first = (_command(path).help or "").split("\n\n")[0]
    assert first.rstrip().endswith((".", ":"))


def test_help_lists_the_commands_without_importing_them() -> None:
    result = plumb("--help")
    assert result.returncode == 0
    assert "Show what a commit would change on this host." in result.stdout


def test_an_unknown_command_exits_with_2_and_names_the_nearest() -> None:
    result = plumb("statsu")
    assert result.returncode == 2
    assert result.stderr == "error: there is no command statsu; did you mean status?\nnext: plumb --help\n"


def test_a_node_that_is_not_here_is_named_and_exits_with_2() -> None:
    result = plumb("--node", "pt-nope", "status")
    assert result.returncode == 2
    assert result.stderr.startswith("error: there is no node pt-nope on this machine")
    assert "\nnext: " in result.stderr


def test_an_unknown_option_exits_with_2_and_says_where_help_is() -> None:
    result = plumb("plan", "--row")
    assert result.returncode == 2
    assert result.stderr.endswith("next: plumb plan --help\n")


def test_a_missing_configuration_exits_with_2_and_says_what_to_write(tmp_path: Path) -> None:
    result = plumb("--config", str(tmp_path / "none.yaml"), "status")
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {tmp_path}/none.yaml: there is no such file\nnext: ")


def test_a_socket_that_nobody_answers_exits_with_13(tmp_path: Path) -> None:
    result = plumb("--socket", str(tmp_path / "none.sock"), "status")
    assert result.returncode == 13
    assert result.stderr == f"error: no daemon answers on {tmp_path}/none.sock\nnext: start it: plumb daemon\n"


def test_whoever_may_not_open_the_socket_is_told_so_and_exits_with_11(tmp_path: Path) -> None:
    """The mode of its directory keeps the user nobody out, whoever listens."""
    tmp_path.chmod(0o700)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-m", "reconciler.cli"]
    result = subprocess.run(
        [*nobody, "--socket", str(tmp_path / "s"), "status"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(CHECKOUT)},
    )
    assert result.returncode == 11
    assert result.stderr.startswith("error: permission denied: ")
    assert "next: run as root" in result.stderr


def test_a_commands_without_a_daemon_that_needs_one_exits_with_13(tmp_path: Path) -> None:
    result = plumb("--socket", str(tmp_path / "none.sock"), "suspend", "maintenance")
    assert result.returncode == 13


def test_output_that_nobody_reads_ends_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [sys.executable, "-m", "reconciler.cli", "completion", "zsh"],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
        cwd=CHECKOUT,
    )
    os.close(writing)
    assert result.returncode == 141
    assert result.stderr == b""


def test_an_interrupt_ends_quietly_with_130() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "reconciler.cli", "apply", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=CHECKOUT,
    )
    assert process.stdin
    _wait_until_reading(process.pid)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors.strip()) == (130, b"")


def _wait_until_reading(pid: int) -> None:
    """Until it blocks in read(2) on its standard input, for at most 20 s."""
    import time

    deadline = time.monotonic() + 20
    while not Path(f"/proc/{pid}/syscall").read_text().startswith("0 0x0 "):
        assert time.monotonic() < deadline
        os.sched_yield()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_printed(shell: str) -> None:
    result = plumb("completion", shell)
    assert result.returncode == 0
    assert "_PLUMB_COMPLETE" in result.stdout


def test_completion_names_the_commands() -> None:
    result = plumb(_PLUMB_COMPLETE="bash_complete", COMP_WORDS="plumb ro", COMP_CWORD="1")
    assert result.stdout == "plain,rollback\n"
