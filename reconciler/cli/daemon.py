"""`plumb daemon`: what keeps this host true."""

from __future__ import annotations

import click

from reconciler.cli.session import Session, pass_session


@click.command("daemon")
@pass_session
def command(session: Session) -> int:
    """Follow the repository and keep this host true, until a signal ends it. What is enforced stays enforced.

    \b
    Examples:
      plumb --config /etc/plumb/config.yaml daemon
    """
    from reconciler.daemon.service import run
    from reconciler.kernel import netns

    config = session.config()
    with netns.inside(session.namespace(config)):
        return run(config)
