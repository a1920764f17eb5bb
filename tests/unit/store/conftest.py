"""Stores in a temporary file, closed when the test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from reconciler.store.embedded import EmbeddedStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "store.db"


@pytest.fixture
def again(path: Path) -> Iterator[Callable[[], EmbeddedStore]]:
    with ExitStack() as opened:
        yield lambda: opened.enter_context(closing(EmbeddedStore(path)))


@pytest.fixture
def store(again: Callable[[], EmbeddedStore]) -> EmbeddedStore:
    return again()
