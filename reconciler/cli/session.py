"""Which host a command is about: its configuration, its daemon if that answers, otherwise the host in this process.

A machine with one configuration needs no options. On a machine with several nodes (a lab) `--node` chooses one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from reconciler.errors import DaemonUnreachable, UsageError

if TYPE_CHECKING:
    from reconciler.cli.backend import Backend
    from reconciler.config import Config
    from reconciler.daemon.client import Client

NODE_CONFIGURATION = "config.yaml"  # below a node's run directory: where a lab puts it


@dataclass(frozen=True, slots=True)
class Session:
    """The three options that come before every command, and what follows from them."""

    config_option: str | None
    node: str | None
    socket_option: str | None

    def config(self) -> Config:
        """Raises UsageError when there is none, or when it is another node's."""
        from reconciler.config import configured_path, load

        directory = self._node_directory()
        own = directory / NODE_CONFIGURATION if directory else None
        path = own if own and own.exists() else configured_path(self.config_option)
        if self.node and directory is None and not self.config_option and not path.exists():
            raise _unknown(self.node)
        found = load(path)
        if self.node and found.node != self.node:
            raise _unknown(self.node, f": {found.path} is of node {found.node}")
        return found

    def socket(self) -> Path:
        """Where the daemon listens, whether or not there is one. Raises UsageError."""
        from reconciler.config import SOCKET_NAME

        if self.socket_option:
            return Path(self.socket_option)
        directory = self._node_directory()
        return directory / SOCKET_NAME if directory else self.config().socket

    def client(self) -> Client:
        """Raises DaemonUnreachable if no daemon answers."""
        from reconciler.daemon.client import Client

        path = self.socket()
        client = Client(path)
        if not client.answers():
            raise DaemonUnreachable(f"no daemon answers on {path}")
        return client

    @contextmanager
    def backend(self) -> Iterator[Backend]:
        """The daemon if it answers; otherwise this process opens the host itself, which needs root."""
        from reconciler.cli.backend import DaemonBackend

        with ExitStack() as stack:
            try:
                client = self.client()
            except DaemonUnreachable:
                if self.socket_option:
                    raise
                yield self._host(stack)
            else:
                yield DaemonBackend(client, None if self.socket_option else partial(self._host, stack))

    def _host(self, stack: ExitStack) -> Backend:
        """Open until the stack is unwound."""
        from reconciler.cli.in_process import HostBackend
        from reconciler.host import Host
        from reconciler.kernel import netns

        config = self.config()
        stack.enter_context(netns.inside(self.namespace(config)))
        return HostBackend(stack.enter_context(Host.open(config)))

    def namespace(self, config: Config) -> str:
        """The path of the network namespace that a lab made for this node, '' for a host of its own."""
        from reconciler.lab.registry import namespace_of

        return namespace_of(config)

    def _node_directory(self) -> Path | None:
        """The run directory of the chosen node, or of the only one here; None if the configuration says where it is."""
        from reconciler.config import DEFAULT_PATH, ENVIRONMENT_VARIABLE, RUN_ROOT

        if self.config_option:
            return None
        if self.node:
            return RUN_ROOT / self.node if (RUN_ROOT / self.node).is_dir() else None
        if os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_PATH.exists():
            return None
        here = nodes_here()
        if len(here) > 1:
            raise UsageError(
                f"several nodes are on this machine: {', '.join(here)}",
                remedy="choose one: plumb --node NAME ..., or for all commands: export PLUMB_NODE=NAME",
            )
        return RUN_ROOT / here[0] if here else None


def nodes_here() -> list[str]:
    """Nodes that have their configuration or their socket below the run directory, in order."""
    from reconciler.config import RUN_ROOT, SOCKET_NAME

    found = {path.parent.name for name in (NODE_CONFIGURATION, SOCKET_NAME) for path in RUN_ROOT.glob(f"*/{name}")}
    return sorted(found)


def _unknown(node: str, why: str = "") -> UsageError:
    here = nodes_here()
    return UsageError(
        f"there is no node {node} on this machine{why}",
        remedy=f"choose one with --node or PLUMB_NODE: {', '.join(here)}"
        if here
        else "begin one: plumb lab up DIRECTORY",
    )


def complete_node(context: click.Context, parameter: click.Parameter, start: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in nodes_here() if name.startswith(start)]


pass_session = click.make_pass_decorator(Session)
