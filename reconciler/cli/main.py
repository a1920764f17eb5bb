"""`plumb`: its options, its commands, and how every way of ending becomes an exit code.

    0 done   1 to 14 an error of `reconciler.errors`   130 interrupted   141 nobody reads the output any more

Errors go to standard error as `error: ...` and `next: ...`; what is wrong in manifests as `path:line:column: ...`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click
from click.shell_completion import shell_complete

from reconciler.cli.completion import COMPLETION_VARIABLE
from reconciler.cli.lazy import LazyGroup
from reconciler.cli.session import Session, complete_node
from reconciler.errors import ManifestError, PermissionMissing, PlumbError

INTERRUPTED = 128 + 2  # as a shell reports SIGINT
OUTPUT_CLOSED = 128 + 13  # and SIGPIPE

_COMMANDS = {
    "init": ("reconciler.cli.init", "Make a policy repository, and its server side."),
    "validate": ("reconciler.cli.validate", "Check manifests, in a directory or at a commit."),
    "test": ("reconciler.cli.test", "Check what policy says against PolicyTests."),
    "plan": ("reconciler.cli.plan", "Show what a commit would change on this host."),
    "apply": ("reconciler.cli.apply", "Make this host as a plan or a commit says."),
    "status": ("reconciler.cli.status", "Show what this host is and runs."),
    "history": ("reconciler.cli.history", "List what was applied on this host."),
    "rollback": ("reconciler.cli.rollback", "Go back to an earlier commit."),
    "suspend": ("reconciler.cli.suspend", "Stop converging; enforcement stays as it is."),
    "resume": ("reconciler.cli.resume", "Converge again after suspend or rollback."),
    "daemon": ("reconciler.cli.daemon", "Keep this host true, in the foreground."),
    "lab": ("reconciler.cli.lab", "Run a cluster of namespaces on this machine."),
    "endpoint": ("reconciler.cli.endpoint", "List the workloads of this host."),
    "node": ("reconciler.cli.node", "List the hosts of the cluster."),
    "identity": ("reconciler.cli.identity", "List identities and their labels."),
    "service": ("reconciler.cli.service", "List Services, their frontends and backends."),
    "map": ("reconciler.cli.map", "Show the rows that this host holds, by table."),
    "verdict": ("reconciler.cli.verdict", "Say what policy makes of flows, case by case."),
    "trace": ("reconciler.cli.trace", "Show what policy makes of a flow, and why."),
    "monitor": ("reconciler.cli.monitor", "Follow drops and verdicts as they happen."),
    "features": ("reconciler.cli.features", "Show what this kernel offers us."),
    "version": ("reconciler.cli.version", "Print the version."),
    "hook": ("reconciler.cli.hook", "What the git hooks of a policy repository run."),
    "completion": ("reconciler.cli.completion", "Print the completion script of a shell."),
}


@click.group(
    "plumb",
    cls=LazyGroup,
    lazy=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--config", metavar="FILE", help="This host's configuration  [default: /etc/plumb/config.yaml]")
@click.option(
    "--node",
    metavar="NAME",
    envvar="PLUMB_NODE",
    shell_complete=complete_node,
    help="One of several nodes on this machine, of a lab for example; also PLUMB_NODE.",
)
@click.option("--socket", metavar="PATH", help="The daemon's socket, instead of the one that the configuration names.")
@click.pass_context
def root(context: click.Context, config: str | None, node: str | None, socket: str | None) -> None:
    """Trues this host to a commit: networking and identity-based policy in eBPF, from git.

    \b
    Examples:
      plumb init policies --bare /srv/policies.git   begin
      plumb lab up policies                          try it on this machine
      plumb plan && plumb apply                      look, then do
      plumb -h, plumb COMMAND -h                     help
    """
    context.obj = Session(config, node, socket)
    if os.environ.get("NO_COLOR"):
        context.color = False


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code. Nothing but a mistake of ours leaves as an exception."""
    try:
        result = _run(list(sys.argv[1:] if arguments is None else arguments))
        if sys.stdout is not None:  # closed by whoever started us
            sys.stdout.flush()
    except PlumbError as error:
        return _report(error)
    except click.ClickException as error:
        return _report_usage(error)
    except click.exceptions.Exit as end:
        return end.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains when it ends
        return OUTPUT_CLOSED
    except PermissionError as error:
        return _report(PermissionMissing(str(error)))
    except OSError as error:  # a full disk, a file that is gone: the system's own words say it best
        return _report(PlumbError(str(error)))
    return result if isinstance(result, int) else 0


def _run(arguments: list[str]) -> object:
    """What click's own `main` does, without its idea of how interrupts and closed pipes end."""
    if instruction := os.environ.get(COMPLETION_VARIABLE):
        return shell_complete(root, {}, "plumb", COMPLETION_VARIABLE, instruction)
    with root.make_context("plumb", arguments) as context:
        return root.invoke(context)


def _report(error: PlumbError) -> int:
    if isinstance(error, ManifestError):
        click.echo(str(error), err=True)
    else:
        click.echo(f"{_label('error:', 'red')} {error}", err=True)
    if error.remedy:
        click.echo(f"{_label('next:', 'cyan')} {error.remedy}", err=True)
    return error.exit_code


def _report_usage(error: click.ClickException) -> int:
    click.echo(f"{_label('error:', 'red')} {error.format_message()}", err=True)
    if isinstance(error, click.UsageError) and error.ctx:
        click.echo(f"{_label('next:', 'cyan')} {error.ctx.command_path} --help", err=True)
    return error.exit_code


def _label(text: str, colour: str) -> str:
    return text if os.environ.get("NO_COLOR") else click.style(text, colour, bold=True)


if __name__ == "__main__":
    sys.exit(main())
