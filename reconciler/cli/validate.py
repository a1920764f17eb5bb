"""`plumb validate`: what is wrong in manifests, and what looks wrong, without touching anything."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import click

from reconciler.cli.output import output_option, show_json
from reconciler.cli.progress import progress
from reconciler.errors import ManifestError, UsageError
from reconciler.model.snapshot import Snapshot, Warning


@click.command("validate")
@click.argument("what", required=False)
@click.option("--repository", metavar="REPOSITORY", type=click.Path(path_type=Path), help="Check a commit of it.")
@click.option("--jsonl", is_flag=True, help="Answer lines of JSON, of a file or of standard input, a line each.")
@output_option
def command(what: str | None, repository: Path | None, jsonl: bool, output: str) -> int:
    """Check the manifests in a directory, or those of a commit (REVISION, HEAD by default) with --repository.

    What is wrong is printed as path:line:column: message, and the exit code is 3. It goes in steps: the fields of each
    document, what they mean, what is not enforced yet and, once all of that is right, what documents say of each other.
    So after mending, check again.

    With --jsonl each line is a JSON object with an id and a doc (a manifest, or its text) or a rule (what stands under
    spec in a Cilium policy). It gets {"id", "valid", "errors"}, as does an empty line; what is valid and not enforced
    yet is valid there.

    \b
    Examples:
      plumb validate                                    this directory
      plumb validate policies
      plumb validate --repository /srv/policies.git main
      plumb validate --jsonl rules.jsonl
    """
    if jsonl:
        if repository:
            raise UsageError("--jsonl and --repository exclude each other")
        return _answer(what)
    try:
        with progress("checking manifests"):
            snapshot = _load(what, repository)
    except ManifestError as error:
        if output == "text":
            raise
        show_json({"faults": [asdict(fault) for fault in error.faults], "warnings": []})
        return error.exit_code
    warnings = _warnings(snapshot)
    if output == "json":
        show_json({"commit": snapshot.commit, "faults": [], "warnings": [asdict(one) for one in warnings]})
        return 0
    for warning in warnings:
        click.echo(str(warning), err=True)
    click.echo(_summary(snapshot, len(warnings)))
    return 0


def _answer(what: str | None) -> int:
    from reconciler.source.bulk import answer

    path = what if what and what != "-" else "standard input"
    for number, line in enumerate(_lines(what), 1):
        found = answer(line, path, number)
        errors = [str(fault) for fault in found.faults]
        click.echo(json.dumps({"id": found.id, "valid": not errors, "errors": errors}, ensure_ascii=False))
    return 0


def _lines(what: str | None) -> Iterator[bytes]:
    if what in (None, "-"):
        yield from sys.stdin.buffer
        return
    try:
        with open(str(what), "rb") as file:
            yield from file
    except OSError as e:
        raise UsageError(f"{what}: {e.strerror}") from e


def _load(what: str | None, repository: Path | None) -> Snapshot:
    from reconciler.source.loading import Cache, load, load_directory

    if repository:
        with closing(Cache()) as cache:
            return load(repository, what or "HEAD", cache)
    directory = Path(what or ".")
    if not directory.is_dir():
        raise UsageError(
            f"{directory} is not a directory", remedy="to check a commit: plumb validate --repository R REV"
        )
    return load_directory(directory)


def _warnings(snapshot: Snapshot) -> list[Warning]:
    from reconciler.compile.lint import lint

    found = (*snapshot.warnings, *lint(snapshot))
    return sorted(found, key=lambda warning: (warning.path, warning.line, warning.column))


def _summary(snapshot: Snapshot, warnings: int) -> str:
    counts = {
        "node": len(snapshot.nodes),
        "workload": len(snapshot.workloads),
        "policy rule": len(snapshot.rules),
        "warning": warnings,
    }
    return "valid: " + ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items())
