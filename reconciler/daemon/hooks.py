"""Answers to the git hooks of the policy repository: is this push good, what would it do, what has it done.

`pre-receive` sees objects that are still in quarantine, through the environment that git gave the hook. Text goes out
line by line; the last line is `exit N` and is meant for the hook, not for people.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler.compile.cache import CompileCache
from reconciler.config import SOCKET_NAME
from reconciler.daemon.fleet import Fleet
from reconciler.daemon.overtaken import refuse_moved
from reconciler.errors import ManifestError, PlumbError, RepositoryError, StoreError, UsageError
from reconciler.host import Host
from reconciler.host.elsewhere import Elsewhere
from reconciler.host.flow_trace import known_of
from reconciler.host.target import Target
from reconciler.model.health import without_health
from reconciler.model.snapshot import Snapshot, Warning
from reconciler.verdict.policy_test import require

if TYPE_CHECKING:
    from reconciler.daemon.client import Client

log = logging.getLogger(__name__)

BRANCHES = "refs/heads/"
SHOWN_WARNINGS = 20
CONVERGED_WITHIN_S = 30.0

OnHost = Callable[..., Awaitable[Any]]  # runs a function of the host in the writer thread


@dataclass(frozen=True, slots=True)
class Push:
    """`updates` are (old, new, ref); a `new` of zeros deletes the ref."""

    repository: Path
    updates: tuple[tuple[str, str, str], ...]
    environment: Mapping[str, str]


def parse(body: Mapping[str, Any]) -> Push:
    """Raises UsageError."""
    try:
        updates = tuple((str(old), str(new), str(ref)) for old, new, ref in body["updates"])
        environment = {str(name): str(value) for name, value in body["environment"].items()}
        return Push(Path(body["repository"]), updates, environment)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"not a push: {error!r}") from error


class Hooks:
    def __init__(self, host: Host, on_host: OnHost, wait: Callable[[str, float], Awaitable[str]], fleet: Fleet) -> None:
        """`wait(commit, timeout_s)` gives the line that tells what became of the commit here."""
        self._host = host
        self._on_host = on_host
        self._wait = wait
        self._fleet = fleet
        self._tested = CompileCache()  # of the commit that was proposed last

    def pre_receive(self, push: Push) -> AsyncGenerator[bytes]:
        return _to_the_end(self._pre_receive(push))

    def post_receive(self, push: Push) -> AsyncGenerator[bytes]:
        return _to_the_end(self._post_receive(push))

    async def _pre_receive(self, push: Push) -> AsyncGenerator[bytes]:
        refused = False
        for old, new, ref in push.updates:
            try:
                async for line in self._proposed(push, old, new, ref):
                    yield line.encode() + b"\n"
                if ref.startswith(BRANCHES):
                    await asyncio.to_thread(refuse_moved, push.repository, ref, old)
            except PlumbError as error:
                refused = True
                yield f"{error}\n".encode()
                if error.remedy:
                    yield f"next: {error.remedy}\n".encode()
        if refused:
            yield b"plumb: refused; nothing changes on any host\n"
        yield b"exit 1\n" if refused else b"exit 0\n"

    async def _proposed(self, push: Push, old: str, new: str, ref: str) -> AsyncIterator[str]:
        if not ref.startswith(BRANCHES):
            return
        followed = ref == self._host.config.ref and _same(push.repository, self._host.config.repository)
        if not new.strip("0"):
            if followed:
                raise UsageError(f"{ref} is what the hosts follow: it cannot be deleted")
            return
        if not followed:
            snapshot = await self._on_host(self._host.load, new, push.environment)
            yield _summary(snapshot, ref)
            await self._on_host(require, snapshot)
            return
        target = await self._on_host(self._host.aim, new, push.environment, True)
        yield _summary(target.snapshot, ref)
        for line in _shown(await self._on_host(self._host.warnings, target)):
            yield line
        await self._on_host(require, target.snapshot, known_of(target), self._tested)
        plan = await self._on_host(self._host.compare, target)
        yield _plan_lines(self._host.config.node, plan.base, plan.render())
        for line in await self._elsewhere(old, target):
            yield line

    async def _elsewhere(self, old: str, target: Target) -> list[str]:
        """What the commit changes on other nodes. Raises CompileError if it does not fit one that `old` did fit."""
        mirrored = self._host.mirrored
        if mirrored is None or not old.strip("0") or len(target.snapshot.nodes) < 2:
            return []
        try:
            before = await self._on_host(self._host.load, old)
        except (ManifestError, RepositoryError):
            return []
        try:
            elsewhere = Elsewhere(before, target, mirrored[0], self._host.programs_of)
            return await asyncio.to_thread(list, elsewhere.lines())
        except StoreError as error:
            return [f"plumb: no plan is worked out for other nodes: {error}"]

    async def _post_receive(self, push: Push) -> AsyncGenerator[bytes]:
        for _, new, ref in push.updates:
            if ref != self._host.config.ref or not new.strip("0"):
                continue
            announced = asyncio.create_task(self._announce(new, ref))
            yield f"{await self._wait(new, CONVERGED_WITHIN_S)}\n".encode()
            if problem := await announced:
                yield f"{problem}\n".encode()
            snapshot = await self._on_host(self._host.load, new)
            siblings = self._siblings(snapshot)
            answers = [asyncio.to_thread(_outcome_of, node, client, new) for node, client in siblings.items()]
            for answer in asyncio.as_completed(answers):
                yield f"{await answer}\n".encode()
            elsewhere = snapshot.nodes.keys() - siblings - {self._host.config.node}
            async for line in self._fleet.lines(new, elsewhere):
                yield f"{line}\n".encode()
        yield b"exit 0\n"

    async def _announce(self, commit: str, ref: str) -> str:
        """What is to be said of it, '' if it went well."""
        try:
            await self._fleet.announce(commit, ref)
        except StoreError as error:
            return f"plumb: hosts elsewhere were not woken, they look for themselves now and then: {error}"
        return ""

    def _siblings(self, snapshot: Snapshot) -> dict[str, Client]:
        """Daemons of other nodes on this machine (a lab); nodes elsewhere tell their own story."""
        runs = self._host.config.run_directory.parent
        others = sorted(set(snapshot.nodes) - {self._host.config.node})
        sockets = {node: path for node in others if (path := runs / node / SOCKET_NAME).exists()}
        if not sockets:
            return {}
        from reconciler.daemon.client import Client  # HTTP from the other side: a lab alone has use for it here

        clients = {node: Client(path) for node, path in sockets.items()}
        return {node: client for node, client in clients.items() if client.answers()}


async def _to_the_end(lines: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """Whatever cuts the answer short becomes its last words: without an `exit N` the hook knows nothing."""
    try:
        async with aclosing(lines):
            async for line in lines:
                yield line
    except PlumbError as error:
        yield f"{error}\nexit 1\n".encode()
    except Exception as error:
        log.exception("hook failed")
        yield f"plumb: internal error: {type(error).__name__}: {error}\nexit 1\n".encode()


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _summary(snapshot: Snapshot, ref: str) -> str:
    parts = [
        _counted(len(snapshot.nodes), "node"),
        _counted(len(without_health(snapshot).workloads), "workload"),
        _counted(len(snapshot.rules), "policy rule"),
    ]
    return f"plumb: {snapshot.commit[:12]} on {ref.removeprefix(BRANCHES)} is valid: {', '.join(parts)}"


def _shown(warnings: Sequence[Warning]) -> Iterator[str]:
    yield from map(str, warnings[:SHOWN_WARNINGS])
    if len(warnings) > SHOWN_WARNINGS:
        yield f"plumb: {_counted(len(warnings) - SHOWN_WARNINGS, 'more warning')}; plumb validate shows all"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _plan_lines(node: str, base: str, rendered: str) -> str:
    head = f"{node}: plan from {base[:12] or 'nothing'}"
    return f"{head}: no change" if not rendered else "\n".join([head, *(f"  {line}" for line in rendered.splitlines())])


def _outcome_of(node: str, client: Client, commit: str) -> str:
    try:
        answer = client.get("/v1/wait", commit=commit, timeout_s=CONVERGED_WITHIN_S)
    except PlumbError as error:
        return f"{node}: {error}"
    return str(answer["text"])
