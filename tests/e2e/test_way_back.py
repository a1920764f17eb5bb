"""What a host notes on disk about commits that it leaves, so that no crash and no failing disk turns them round."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.engine.record import Result
from reconciler.host import Host
from reconciler.host.hold import HoldFile
from reconciler.kernel.netns import inside
from tests.e2e.daemon_host import DaemonHost, made_host, policy

pytestmark = pytest.mark.root


@pytest.fixture
def made(tmp_path: Path) -> Iterator[DaemonHost]:
    with made_host(tmp_path, "web", started=False) as found:
        yield found


@pytest.fixture
def host(made: DaemonHost) -> Iterator[Host]:
    """At the repository's first commit; the branch is one further."""
    with inside(made.path), Host.open(made.config) as opened:
        opened.converge(made.git("rev-parse", "HEAD"))
        made.write("policies/one.yaml", policy("one", "web", ingress=[]))
        made.commit()
        yield opened


def test_what_is_held_back_is_on_disk_before_the_first_write(made: DaemonHost, host: Host) -> None:
    """Who is killed in the middle of a rollback must not go forward again: looked at where writing begins."""
    first, second = host.base, made.git("rev-parse", "HEAD")
    host.converge(second)
    found: list[str] = []

    @contextmanager
    def looking() -> Iterator[None]:
        found.append(HoldFile(made.config.state_directory).read().held)
        yield

    with Host.open(made.config, looking()) as other:
        other.rollback()
    assert (found, host.base) == ([second], first)


def test_a_commit_that_was_noted_and_then_taken_back_does_not_count(made: DaemonHost, host: Host) -> None:
    """As when the disk fails between the line in the history and the end of the journal's entry."""
    first = host.base
    opened = made.config.state_directory / "journal" / "open.json"
    entry = host.journal.open(host.plan("HEAD"))
    content = opened.read_bytes()
    host.journal.commit(entry)
    opened.write_bytes(content)
    host.journal.take_back(entry, "the disk failed")
    assert [record.result for record in host.journal.history(2)] == [Result.ROLLED_BACK, Result.APPLIED]
    assert (host.base, host.status()["commit"]) == (first, first)
