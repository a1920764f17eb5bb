"""`plumb test`: the PolicyTests of a directory or of a commit, without a host."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli.output import output_option, show_json
from reconciler.cli.progress import progress
from reconciler.errors import PolicyTestFailed, UsageError
from reconciler.model.snapshot import Snapshot

if TYPE_CHECKING:
    from reconciler.verdict.policy_test import Result


@click.command("test")
@click.argument("what", required=False)
@click.option("--repository", metavar="REPOSITORY", type=click.Path(path_type=Path), help="Test a commit of it.")
@output_option
def command(what: str | None, repository: Path | None, output: str) -> int:
    """Judge the flows that PolicyTests speak of, in a directory or (REVISION, HEAD by default) with --repository.

    A line for each expectation; where one fails, what it got instead and the trace of the flow, and the exit code is 1.

    \b
    Examples:
      plumb test                                    this directory
      plumb test policies
      plumb test --repository /srv/policies.git main
    """
    from reconciler.verdict import policy_test

    with progress("judging"):
        snapshot = _load(what, repository)
        found = policy_test.results(snapshot)
    failed = [one for one in found if not one.holds]
    if output == "json":
        show_json(_json(snapshot, found))
    else:
        for one in found:
            _show(one)
        click.echo(_summary(len(found), len(failed)))
    return PolicyTestFailed.exit_code if failed else 0


def _load(what: str | None, repository: Path | None) -> Snapshot:
    from reconciler.source.loading import Cache, load, load_directory

    if repository:
        with closing(Cache()) as cache:
            return load(repository, what or "HEAD", cache)
    directory = Path(what or ".")
    if not directory.is_dir():
        raise UsageError(f"{directory} is not a directory", remedy="to test a commit: plumb test --repository R REV")
    return load_directory(directory)


def _show(one: Result) -> None:
    from reconciler.verdict.trace_text import to_text

    mark = click.style("ok    ", "green") if one.holds else click.style("failed", "red")
    if one.holds:
        click.echo(f"{mark}  {one.test.reference}  {one.expectation}: {one.expectation.expect}")
    else:
        click.echo(f"{mark}  {one.test.reference}  {one.fault}")
    for note in one.notes:
        click.echo(f"        {note}")
    if one.failing is not None:
        for line in to_text(one.failing).splitlines():
            click.echo(f"        {line}".rstrip())


def _summary(count: int, failed: int) -> str:
    if not count:
        return "there are no expectations"
    noun = "expectation" if count == 1 else "expectations"
    return f"{count} {noun}: {count - failed} as expected, {failed} failed"


def _json(snapshot: Snapshot, found: Sequence[Result]) -> dict[str, Any]:
    return {
        "commit": snapshot.commit,
        "expectations": len(found),
        "failed": sum(not one.holds for one in found),
        "results": [_result(one) for one in found],
    }


def _result(one: Result) -> dict[str, Any]:
    from reconciler.verdict.trace_json import to_json

    wanted = one.expectation
    return {
        "test": one.test.reference,
        "name": wanted.name,
        "from": str(wanted.source),
        "to": str(wanted.destination),
        "port": str(wanted.port) if wanted.port else None,
        "path": wanted.origin.path,
        "line": wanted.origin.line,
        "column": wanted.column,
        "expected": wanted.expect,
        "holds": one.holds,
        "verdict": one.failing.verdict if one.failing else None if one.error else wanted.expect,
        "flows": one.flows,
        "error": one.error,
        "notes": list(one.notes),
        "trace": to_json(one.failing) if one.failing else None,
    }
