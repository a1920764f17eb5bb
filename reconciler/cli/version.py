"""`plumb version`."""

from __future__ import annotations

import click

from reconciler import __version__
from reconciler.cli.output import output_option, show_json


@click.command("version")
@output_option
def command(output: str) -> None:
    """Print the version of this command."""
    if output == "json":
        show_json({"version": __version__})
    else:
        click.echo(f"plumb {__version__}")
