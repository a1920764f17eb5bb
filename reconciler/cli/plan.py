"""`plumb plan`: what a commit would change on this host. Nothing is written."""

from __future__ import annotations

import json
from pathlib import Path

import click

from reconciler.cli.output import output_option, show_absent, show_json, show_plan
from reconciler.cli.progress import progress
from reconciler.cli.session import Session, pass_session


@click.command("plan")
@click.argument("revision", required=False)
@click.option("--rows", is_flag=True, help="Show every row, not only how many.")
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="Keep the plan, for `plumb apply FILE`.")
@output_option
@pass_session
def command(session: Session, revision: str | None, rows: bool, out: Path | None, output: str) -> None:
    """Show what REVISION (the followed branch by default) would change on this host.

    \b
    Examples:
      plumb plan
      plumb plan --rows feature/web
      plumb plan --out next.plan && plumb apply next.plan
    """
    with session.backend() as backend, progress("planning"):
        answer = backend.plan(revision, rows)
    if out:
        out.write_text(json.dumps(answer["plan"]))
    if output == "json":
        show_json(answer)
        return
    click.echo(f"{answer['commit'][:12]} against {answer['base'][:12] or 'nothing'}, digest {answer['digest'][:12]}")
    show_plan(answer["text"] or "nothing changes")
    identities = answer["identities"]
    if identities["before"] not in (None, identities["after"]):
        click.echo(f"identities of workloads: {identities['before']} before, {identities['after']} after")
    show_absent(answer["absent"])
    if out:
        click.echo(f"kept in {out}; to do exactly this: plumb apply {out}")
