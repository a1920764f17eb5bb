"""`plumb features`: what this kernel offers us, and what we do without."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from reconciler.cli.output import output_option, show_json, show_rows
from reconciler.cli.progress import progress
from reconciler.cli.session import Session, pass_session
from reconciler.errors import DaemonUnreachable, FeatureMissing, UsageError


@click.command("features")
@output_option
@pass_session
def command(session: Session, output: str) -> int:
    """Show the kernel features that matter to us: there or not, needed or not, and what their lack means.

    The exit code is 10 if one is missing that we cannot do without.

    \b
    Examples:
      plumb features
      plumb features -o json
    """
    with progress("trying out the kernel"):
        found = _found(session)
    if output == "json":
        show_json(found)
    else:
        show_rows([_row(one) for one in found], empty="nothing was probed")
    return FeatureMissing.exit_code if any(one["needed"] and not one["present"] for one in found) else 0


def _found(session: Session) -> list[dict[str, Any]]:
    """The daemon's answer, or what this process finds out; that needs no configuration."""
    try:
        answer: list[dict[str, Any]] = session.client().get("/v1/features")
    except (DaemonUnreachable, UsageError):
        from reconciler.datapath.features import probe

        return [asdict(one) for one in probe()]
    return answer


def _row(feature: dict[str, Any]) -> dict[str, Any]:
    lack = "" if feature["present"] else feature["consequence"]
    return {"feature": feature["name"], "present": feature["present"], "needed": feature["needed"], "without it": lack}
