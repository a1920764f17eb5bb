"""The end of an answer to a git hook, whatever happened before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from reconciler.daemon.hooks import _to_the_end
from reconciler.errors import RepositoryError


def _answer(failure: Exception | None) -> bytes:
    async def lines() -> AsyncGenerator[bytes]:
        yield b"alpha: plan\n"
        if failure is not None:
            raise failure
        yield b"exit 0\n"

    async def whole() -> bytes:
        return b"".join([line async for line in _to_the_end(lines())])

    return asyncio.run(whole())


@pytest.mark.parametrize(
    ("failure", "end"),
    [
        (None, b"exit 0\n"),
        (RepositoryError("the commit is gone"), b"the commit is gone\nexit 1\n"),
        (ZeroDivisionError("division"), b"plumb: internal error: ZeroDivisionError: division\nexit 1\n"),
    ],
)
def test_it_ends_with_an_exit_code(failure: Exception | None, end: bytes) -> None:
    assert _answer(failure) == b"alpha: plan\n" + end
