"""1,000 connections a second to a service: none is lost while the daemon is away, nor when the table changes."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.e2e.loaded_host import LoadedHost, changing_tables, loaded_host

pytestmark = pytest.mark.root

BACKENDS = ("b0", "b1", "b2", "b3")
TABLES = 20
ANSWERS = 1000


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedHost]:
    with loaded_host(tmp_path_factory.mktemp("h"), BACKENDS, BACKENDS) as made:
        yield made


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_daemon_that_ends_and_starts_again_loses_no_connection(loaded: LoadedHost, number: signal.Signals) -> None:
    with loaded.load():
        loaded.backends.until_answered(ANSWERS)
        loaded.host.stop(number)
        loaded.backends.until_answered(ANSWERS)
        loaded.host.start()
        loaded.host.settle()
        loaded.backends.until_answered(ANSWERS)
    loaded.assert_only_these_failed()


def test_a_table_that_changes_loses_no_connection(loaded: LoadedHost) -> None:
    tables = changing_tables(loaded.host)
    with loaded.load():
        loaded.backends.until_answered(ANSWERS)
        for turn in range(TABLES):
            loaded.host.write("services/web.yaml", tables[(turn + 1) % len(tables)])
            loaded.host.wait_for(loaded.host.commit())
        loaded.backends.until_answered(ANSWERS)
    loaded.assert_only_these_failed()
