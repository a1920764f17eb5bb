"""`plumb init`: a policy repository to start from."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("init")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--bare", metavar="PATH", type=click.Path(path_type=Path), help="Make its server side too, with hooks.")
def command(directory: Path, bare: Path | None) -> None:
    """Make a policy repository in DIRECTORY: example manifests, a README, a first commit.

    With --bare its server side is made as well, with the hooks that check a push and print its plan,
    and DIRECTORY pushes to it.

    \b
    Examples:
      plumb init policies
      plumb init policies --bare /srv/policies.git
    """
    from reconciler.source.hooks import init_bare, init_repository

    init_repository(directory)
    click.echo(f"made {directory}: a policy repository with example manifests")
    if bare:
        init_bare(bare, directory)
        click.echo(f"made {bare}: its server side; `git -C {directory} push` is checked there")
    click.echo(f"next: plumb validate {directory}; plumb lab up {bare or directory}")
