"""What the API does where: the event loop stays free for those who wait."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest

from reconciler.daemon.api import Api
from reconciler.daemon.http import Request
from reconciler.daemon.outcome import Outcome, Outcomes
from reconciler.errors import UsageError

READ_IN: list[str] = []


class _Noting(Request):
    """A request that notes in which thread its body is read, and has a wrong one."""

    def json(self) -> dict[str, Any]:
        READ_IN.append(threading.current_thread().name)
        raise UsageError("read")


@pytest.mark.parametrize("path", ["apply", "plan", "trace", "rollback", "suspend", "hook/pre-receive"])
def test_a_body_is_read_beside_the_event_loop(path: str) -> None:
    writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")

    async def on_host(function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(writer, lambda: function(*arguments))

    async def ask() -> None:
        service = SimpleNamespace(host=None, on_host=on_host, fleet=None)
        with pytest.raises(UsageError, match="read"):
            await Api(cast(Any, service)).respond(_Noting("POST", f"/v1/{path}", {}, b""))

    READ_IN.clear()
    asyncio.run(ask())
    writer.shutdown()
    assert READ_IN == ["writer_0"]


def test_an_outcome_that_comes_while_the_branch_is_looked_at_is_told() -> None:
    """The branch is back at a commit, whose former outcome is past; the pass ends before the writer answers."""
    commit, other = "a" * 40, "b" * 40

    async def ask() -> Any:
        outcomes = Outcomes()
        for one in (commit, other):
            await outcomes.publish(Outcome("alpha", one, "refused", 1.0))

        async def on_host(*_: object) -> str:
            await outcomes.publish(Outcome("alpha", commit, "applied", 1.0))
            return commit

        host = SimpleNamespace(resolve=None, config=SimpleNamespace(ref="main"))
        service = SimpleNamespace(host=host, on_host=on_host, fleet=None, outcomes=outcomes)
        query = {"commit": commit, "timeout_s": "5"}
        return await Api(cast(Any, service)).respond(Request("GET", "/v1/wait", query, b""))

    assert json.loads(asyncio.run(ask()).content)["result"] == "applied"
