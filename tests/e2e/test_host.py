"""A host without a daemon, in this process: transactions that were left open, the way back, what is held."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.host import Host
from reconciler.kernel.netns import inside
from tests.e2e.daemon_host import DaemonHost, made_host, policy

pytestmark = pytest.mark.root


@pytest.fixture
def made(tmp_path: Path) -> Iterator[DaemonHost]:
    with made_host(tmp_path, "web", started=False) as found:
        yield found


@pytest.fixture
def host(made: DaemonHost) -> Iterator[Host]:
    """At the repository's first commit."""
    with inside(made.path), Host.open(made.config) as opened:
        opened.converge(made.git("rev-parse", "HEAD"))
        yield opened


def _commit(made: DaemonHost, name: str) -> str:
    made.write(f"policies/{name}.yaml", policy(name, "web", ingress=[]))
    return made.commit()


def test_a_transaction_that_was_left_open_is_undone_before_the_next(made: DaemonHost, host: Host) -> None:
    commit = _commit(made, "closed")
    host.journal.open(host.plan(commit))
    assert host.converge(commit) is not None
    assert not host.journal.unfinished
    assert host.base == commit
    assert [record.reason for record in host.journal.history(2)] == ["", "interrupted"]


def test_a_transaction_that_was_left_open_is_undone_even_if_nothing_else_changes(made: DaemonHost, host: Host) -> None:
    base = host.base
    host.journal.open(host.plan(_commit(made, "closed")))
    host.converge(base)
    assert not host.journal.unfinished
    assert not host.plan(base)
