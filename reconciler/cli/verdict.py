"""`plumb verdict`: what policy says of flows, case by case, without a host."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from typing import TYPE_CHECKING, BinaryIO

import click

from reconciler.model.cluster import AllowLocalhost, Enforcement

if TYPE_CHECKING:
    from reconciler.verdict.by_rows import Engine


@click.command("verdict")
@click.argument("cases", type=click.File("rb"), default="-")
@click.option(
    "--engine",
    type=click.Choice(["compile", "kernel"]),
    default="compile",
    show_default=True,
    help="Judge from the compiled rows, or load them into the kernel's programs and ask those (needs root).",
)
@click.option(
    "--allow-localhost",
    type=click.Choice([one.value for one in AllowLocalhost]),
    default=AllowLocalhost.AUTO.value,
    show_default=True,
    help="Whether the host may open connections to its workloads whatever their policy.",
)
@click.option(
    "--ipblock-matches-pods/--no-ipblock-matches-pods",
    default=True,
    show_default=True,
    help="Whether an ipBlock of a NetworkPolicy means workloads too.",
)
@click.option(
    "--enforcement",
    type=click.Choice([one.value for one in Enforcement]),
    default=Enforcement.DEFAULT.value,
    show_default=True,
    help="Where workloads are isolated: where a rule selects them, everywhere, nowhere.",
)
def command(cases: BinaryIO, engine: str, allow_localhost: str, ipblock_matches_pods: bool, enforcement: str) -> None:
    """Judge the flows of CASES (JSON Lines, standard input by default); answer one line of JSON for each line.

    A line has policies (docs, rules or policies), ends (endpoints or pods) and what is asked (flows, or expect with
    tables to fill). An end with labels and an ip is a workload with that address. The answer to a line that cannot be
    judged, an empty one too, is its id (null if it has none) and an error.

    \b
    Examples:
      plumb verdict cases.jsonl
      plumb verdict --engine kernel --allow-localhost policy < cases.jsonl
    """
    from reconciler.verdict import stream
    from reconciler.verdict.case import Settings

    settings = Settings(Enforcement(enforcement), AllowLocalhost(allow_localhost), ipblock_matches_pods)
    with closing(_engine(engine)) as judging:
        judge = stream.Judge(judging, settings, cases.name)
        for block in stream.blocks(cases.fileno()):
            for answered in judge.answers(block):
                sys.stdout.write(json.dumps(answered) + "\n")  # in ASCII: an id may be half a character
            sys.stdout.flush()


def _engine(name: str) -> Engine:
    if name == "kernel":
        from reconciler.verdict.by_kernel import KernelEngine

        return KernelEngine()
    from reconciler.verdict.by_rows import RowsEngine

    return RowsEngine()
