"""What the API does where: the event loop stays free for those who wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest

from reconciler.daemon.api import Api
from reconciler.daemon.http import Request
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
