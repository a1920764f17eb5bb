"""The API: one function a path, JSON in and out. It answers whoever may open the socket, and decides nothing itself."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from reconciler import __version__
from reconciler.daemon.hooks import Hooks, parse
from reconciler.daemon.http import Request, Response, json_response
from reconciler.daemon.monitor import MASKS
from reconciler.daemon.outcome import Outcome, as_json
from reconciler.daemon.overtaken import newer, overtaken
from reconciler.datapath.features import probe
from reconciler.engine.plan import Plan
from reconciler.engine.record import Record, to_plain
from reconciler.errors import PlumbError, UsageError
from reconciler.host import Host
from reconciler.host.answers import applied_answer, plan_answer
from reconciler.host.cluster_status import cluster_status
from reconciler.host.flow_trace import flow_trace

if TYPE_CHECKING:
    from reconciler.daemon.service import Service

DEFAULT_LIMIT = 100
LONGEST_WAIT_S = 600.0

Answer = Callable[[Request], Awaitable[Response]]


class Api:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._hooks = Hooks(service.host, service.on_host, self._wait_line, service.fleet)
        self._answers: dict[tuple[str, str], Answer] = {
            ("GET", "/v1/status"): self._status,
            ("GET", "/v1/cluster"): self._cluster,
            ("GET", "/v1/health"): self._health,
            ("GET", "/v1/version"): self._version,
            ("GET", "/v1/history"): self._history,
            ("GET", "/v1/endpoints"): self._endpoints,
            ("GET", "/v1/identities"): self._identities,
            ("GET", "/v1/services"): self._services,
            ("GET", "/v1/nodes"): self._nodes,
            ("POST", "/v1/nodes/forget"): self._forget,
            ("GET", "/v1/tables"): self._tables,
            ("GET", "/v1/features"): self._features,
            ("GET", "/v1/drift"): self._drift,
            ("GET", "/v1/events"): self._events,
            ("GET", "/v1/wait"): self._wait,
            ("POST", "/v1/plan"): self._plan,
            ("POST", "/v1/trace"): self._trace,
            ("POST", "/v1/apply"): self._apply,
            ("POST", "/v1/rollback"): self._rollback,
            ("POST", "/v1/suspend"): self._suspend,
            ("POST", "/v1/resume"): self._resume,
            ("POST", "/v1/hook/pre-receive"): self._pre_receive,
            ("POST", "/v1/hook/post-receive"): self._post_receive,
        }

    async def respond(self, request: Request) -> Response:
        answer = self._answers.get((request.method, request.path))
        if answer is not None:
            return await answer(request)
        if request.method == "GET" and request.path.startswith("/v1/tables/"):
            return await self._rows(request)
        if any(path == request.path for _, path in self._answers):
            raise UsageError(f"{request.path} does not take {request.method}")
        raise UsageError(f"there is no {request.path}; there are {', '.join(sorted(p for _, p in self._answers))}")

    async def _body(self, request: Request) -> dict[str, Any]:
        """In the writer thread: a plan may be long."""
        body: dict[str, Any] = await self._service.on_host(request.json)
        return body

    # What there is

    async def _version(self, request: Request) -> Response:
        return json_response({"version": __version__})

    async def _status(self, request: Request) -> Response:
        service = self._service
        status = await service.on_host(service.host.status)
        counters = await service.on_host(service.monitor.counters)
        target = service.host.target
        status |= {
            "state": service.state,
            "last_error": str(service.error or ""),
            "last_remedy": service.error.remedy if service.error else "",
            "last_pass_ms": round(service.last_pass_ms, 3),
            "endpoints": len(await service.on_host(lambda: service.host.listing().endpoints())),
            "policies": len({rule.reference for rule in target.snapshot.rules}) if target else 0,
            "tables": await service.on_host(service.host.row_counts, service.mending.run),
            "counters": counters,
            "flows": await service.on_host(service.monitor.fullness),
            "drift_repairs": service.repairs,
            "remote": service.follower.status(),
            "health": service.health.summary(),
            "attribution": service.tamper.attribution(),
            "daemon": {"pid": os.getpid(), "started": service.started.isoformat(), "version": __version__},
        }
        return json_response(status)

    async def _cluster(self, request: Request) -> Response:
        return json_response(await self._service.on_host(cluster_status, self._service.host))

    async def _health(self, request: Request) -> Response:
        return json_response(self._service.health.counters())

    async def _history(self, request: Request) -> Response:
        records = await self._service.on_host(self._service.host.journal.history, _limit(request))
        return json_response([to_plain(record) for record in records])

    async def _endpoints(self, request: Request) -> Response:
        everywhere = bool(request.query.get("everywhere"))
        return json_response(await self._service.on_host(lambda: self._service.host.listing().endpoints(everywhere)))

    async def _nodes(self, request: Request) -> Response:
        return json_response(await self._service.on_host(self._service.host.nodes))

    async def _forget(self, request: Request) -> Response:
        node = _text(await self._body(request), "node", "")
        return json_response({"keys": await self._service.on_host(self._service.host.forget, node)})

    async def _identities(self, request: Request) -> Response:
        return json_response(await self._service.on_host(lambda: self._service.host.listing().identities()))

    async def _services(self, request: Request) -> Response:
        return json_response(await self._service.on_host(lambda: self._service.host.listing().services()))

    async def _tables(self, request: Request) -> Response:
        service = self._service
        return json_response(await service.on_host(service.host.row_counts, service.mending.run))

    async def _rows(self, request: Request) -> Response:
        name = request.path.removeprefix("/v1/tables/")
        if name not in self._service.host.tables:
            raise UsageError(f"no table {name!r}; there are {', '.join(self._service.host.tables)}")
        return json_response(await self._service.on_host(lambda: self._service.host.listing().rows(name)))

    async def _features(self, request: Request) -> Response:
        found = await self._service.on_host(probe)
        return json_response([asdict(one) for one in found])

    async def _drift(self, request: Request) -> Response:
        newest_first = list(reversed(self._service.drift))[: _limit(request)]
        return json_response([report.to_json() for report in newest_first])

    async def _events(self, request: Request) -> Response:
        types = frozenset(filter(None, request.query.get("types", "drop,verdict").split(",")))
        if not types or not types <= MASKS.keys():
            raise UsageError(f"types must be some of {', '.join(MASKS)}, separated by commas")
        return Response(self._service.monitor.stream(types), "application/jsonl")

    # What can be done

    async def _plan(self, request: Request) -> Response:
        body = await self._body(request)
        host = self._service.host
        revision = _text(body, "revision", host.config.ref)
        environment, tables = _mapping(body, "environment"), _names(body, "tables")
        rows = bool(body.get("rows"))
        return Response(await self._service.on_host(_planned, host, revision, environment, tables, rows))

    async def _trace(self, request: Request) -> Response:
        body = await self._body(request)
        source, destination, port = (_text(body, name, "") for name in ("from", "to", "port"))
        revision = _text(body, "revision", "") or None
        host = self._service.host
        return json_response(await self._service.on_host(flow_trace, host, source, destination, port, revision))

    async def _apply(self, request: Request) -> Response:
        body = await self._body(request)
        host = self._service.host
        self._refuse_if_suspended()
        if "plan" in body:
            record: Record | None = await self._service.on_host(
                lambda: host.apply_on_request(Plan.from_json(json.dumps(body["plan"]), host.tables))
            )
        else:
            revision = _text(body, "revision", host.config.ref)
            record = await self._service.on_host(host.converge_on_request, revision, _names(body, "tables"))
        return await self._applied(record)

    async def _rollback(self, request: Request) -> Response:
        body = await self._body(request)
        self._refuse_if_suspended()
        record = await self._service.on_host(self._service.host.rollback, _text(body, "commit", "") or None)
        return await self._applied(record)

    async def _applied(self, record: Record | None) -> Response:
        self._service.trigger.poke("applied on request")
        commit = await self._service.on_host(lambda: self._service.host.base)
        host = self._service.host
        return json_response(applied_answer(record, commit, host.hold.held, host.absent))

    def _refuse_if_suspended(self) -> None:
        reason = self._service.host.hold.suspended
        if reason:
            raise PlumbError(f"this host is suspended: {reason}", remedy="plumb resume")

    async def _suspend(self, request: Request) -> Response:
        reason = _text(await self._body(request), "reason", "").strip()
        if not reason or not reason.isprintable():
            raise UsageError(
                "a reason is needed: one line of text, without control characters", remedy='plumb suspend "WHY"'
            )
        await self._service.on_host(self._service.host.suspend, reason)
        return await self._status(request)

    async def _resume(self, request: Request) -> Response:
        await self._service.on_host(self._service.host.resume)
        self._service.outcomes.forget_kept_back()
        self._service.trigger.poke("resumed", commit=True, again=True)
        self._service.trigger.poke("resumed")
        return await self._status(request)

    # Waiting, and git

    async def _wait(self, request: Request) -> Response:
        try:
            timeout_s = min(float(request.query.get("timeout_s", "30")), LONGEST_WAIT_S)
        except ValueError:
            raise UsageError("timeout_s must be a number of seconds") from None
        outcome = await self._outcome(request.query.get("commit", ""), timeout_s)
        return json_response({**as_json(outcome), "text": str(outcome)})

    async def _outcome(self, commit: str, timeout_s: float) -> Outcome:
        if not commit:
            raise UsageError("commit is missing")
        outcomes = self._service.outcomes
        if outcomes.is_past(commit) and commit == await self._head() and outcomes.is_past(commit):  # still, after that
            outcomes.forget(commit)
        if outcomes.get(commit) is None and (later := await self._newer(commit)):
            return overtaken(commit, await outcomes.wait(later, timeout_s))
        if outcomes.get(commit) is None:
            self._service.follower.wake(commit)
            self._service.trigger.poke(f"asked for {commit[:12]}", commit=True)
        try:
            return await outcomes.wait(commit, timeout_s)
        except PlumbError as unknown:
            if (later := await self._newer(commit)) and (instead := outcomes.get(later)):
                return overtaken(commit, instead)
            if self._service.error is None:
                raise
            raise PlumbError(f"{unknown}: {self._service.error}", remedy=unknown.remedy) from unknown

    async def _newer(self, commit: str) -> str:
        config = self._service.config
        return await asyncio.to_thread(newer, config.repository, config.ref, commit)

    async def _head(self) -> str:
        """The branch's commit, or '' if it cannot be read."""
        host = self._service.host
        try:
            return await self._service.on_host(host.resolve, host.config.ref)
        except PlumbError:
            return ""

    async def _wait_line(self, commit: str, timeout_s: float) -> str:
        try:
            return str(await self._outcome(commit, timeout_s))
        except PlumbError as error:
            return f"{self._service.config.node}: {error}"

    async def _pre_receive(self, request: Request) -> Response:
        return _plain(self._hooks.pre_receive(parse(await self._body(request))))

    async def _post_receive(self, request: Request) -> Response:
        return _plain(self._hooks.post_receive(parse(await self._body(request))))


def _plain(lines: AsyncGenerator[bytes]) -> Response:
    return Response(lines, "text/plain; charset=utf-8")


def _planned(
    host: Host, revision: str, environment: dict[str, Any] | None, tables: list[str] | None, rows: bool
) -> bytes:
    """As JSON; in the writer thread, as it may be long. Names are those of the plan's own commit."""
    target = host.aim(revision, environment, preview=True)
    plan = host.compare(target, tables)
    return json.dumps(plan_answer(plan, target, host.tables, rows=rows, applied=host.target)).encode()


def _text(body: dict[str, Any], name: str, default: str) -> str:
    value = body.get(name, default)
    if not isinstance(value, str):
        raise UsageError(f"{name} must be text")
    return value


def _names(body: dict[str, Any], name: str) -> list[str] | None:
    value = body.get(name)
    if value is None or (isinstance(value, list) and all(isinstance(one, str) for one in value)):
        return value
    raise UsageError(f"{name} must be a list of names")


def _mapping(body: dict[str, Any], name: str) -> dict[str, str] | None:
    value = body.get(name)
    if value is None or (isinstance(value, dict) and all(isinstance(one, str) for one in value.values())):
        return value
    raise UsageError(f"{name} must be an object of texts")


def _limit(request: Request) -> int:
    try:
        return max(0, int(request.query.get("limit", DEFAULT_LIMIT)))
    except ValueError:
        raise UsageError("limit must be a whole number") from None
