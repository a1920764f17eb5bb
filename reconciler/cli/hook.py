"""`plumb hook`: what the hooks of a policy repository run when no daemon's socket is set for them.

A daemon on this machine that follows the repository answers for all its nodes here; without one, or where it does not
answer, the push is checked in this process, and nobody's plan is shown.
"""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path

import click

from reconciler.cli.session import nodes_here
from reconciler.daemon.client import Client
from reconciler.errors import DaemonSilent, DaemonUnreachable, PermissionMissing, PlumbError, UsageError

_BRANCHES = "refs/heads/"
_LINE_TIMEOUT_S = 120.0
_EXIT = "exit "  # how the last line of a daemon's answer begins
_UNANSWERED = (
    "plumb: the daemon of this host does not answer (it is stopped, busy or gone); "
    "the commit was checked here and will be applied when it is back"
)
_UNKNOWN = (
    "plumb: it is not known whether the commit is applied: the daemon of this host does not answer; "
    "plumb status says more"
)

Update = tuple[str, str, str]  # old, new, ref: git help githooks, pre-receive


@click.command("hook")
@click.argument("name", metavar="pre-receive|post-receive", type=click.Choice(["pre-receive", "post-receive"]))
@click.option("--unanswered", is_flag=True, help="Ask no daemon: the one that follows was asked and does not answer.")
def command(name: str, unanswered: bool) -> int:
    """Answer a git hook: reads `OLD NEW REF` lines from standard input, in the repository that git runs it in.

    \b
    Examples:
      plumb hook pre-receive        as a line of hooks/pre-receive
    """
    repository = Path(os.environ.get("GIT_DIR", ".")).resolve()
    updates = [_update(line) for line in sys.stdin.read().splitlines()]
    try:
        daemon = None if unanswered else _daemon_following(repository)
        if daemon:
            return _ask(daemon, name, repository, updates)
    except DaemonUnreachable:
        unanswered = True
    if name == "post-receive":
        if unanswered:
            click.echo(_UNKNOWN)
        return 0
    code = _check(repository, updates, "" if unanswered else "; no daemon here follows it")
    if unanswered and code == 0:
        click.echo(_UNANSWERED)
    return code


def _update(line: str) -> Update:
    parts = line.split(" ", 2)
    if len(parts) != 3:
        raise UsageError(f"{line!r} is no `OLD NEW REF`", remedy="this command is run by git's hooks")
    return parts[0], parts[1], parts[2]


def _daemon_following(repository: Path) -> Client | None:
    """The first daemon on this machine that follows the repository.

    Raises DaemonSilent if none is known to, and one that may follow it does not answer.
    """
    from reconciler.config import RUN_ROOT, SOCKET_NAME

    silent = None
    for node in nodes_here():
        client = Client(RUN_ROOT / node / SOCKET_NAME)
        try:
            if client.answers() and _follows(client, repository):
                return client
        except DaemonSilent as error:
            silent = error
        except (DaemonUnreachable, PermissionMissing):
            continue
    if silent is not None:
        raise silent
    return None


def _follows(client: Client, repository: Path) -> bool:
    followed = Path(client.get("/v1/status")["repository"]).resolve()
    return repository in (followed, followed / ".git")


def _ask(client: Client, name: str, repository: Path, updates: list[Update]) -> int:
    """Passes its text on; the exit code is what its last line says. Raises DaemonUnreachable where there is none."""
    environment = {key: value for key, value in os.environ.items() if key.startswith("GIT_")}
    body = {"repository": str(repository), "updates": updates, "environment": environment}
    code = None
    for line in client.lines("POST", f"/v1/hook/{name}", body, _LINE_TIMEOUT_S):
        if line.startswith(_EXIT):
            code = int(line.removeprefix(_EXIT))
        else:
            click.echo(line)
    if code is None:
        raise DaemonUnreachable("the daemon's answer was cut short")
    return code


def _check(repository: Path, updates: list[Update], known: str) -> int:
    """Every branch must be valid. `known` ends the line that says so."""
    from reconciler.compile.lint import lint
    from reconciler.source.loading import Cache, load
    from reconciler.verdict.policy_test import require

    code = 0
    for _, new, ref in updates:
        if not ref.startswith(_BRANCHES):
            continue
        try:
            if new.strip("0"):
                with closing(Cache()) as cache:
                    snapshot = load(repository, new, cache, os.environ)
                require(snapshot)
                click.echo(f"plumb: {new[:12]} on {ref.removeprefix(_BRANCHES)} is valid{known}")
                for warning in (*snapshot.warnings, *lint(snapshot)):
                    click.echo(str(warning))
        except PlumbError as error:
            code = error.exit_code
            click.echo(f"{error}\nplumb: {ref.removeprefix(_BRANCHES)} is refused")
    return code
