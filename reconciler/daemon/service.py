"""The daemon: one event loop, one thread that writes to the kernel, one trigger that wakes it.

run(config)    blocks until SIGTERM or SIGINT; enforcement stays as it is when it ends
"""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from reconciler import __version__
from reconciler.config import Config
from reconciler.daemon.api import Api
from reconciler.daemon.backend_checks import BackendChecks
from reconciler.daemon.convergence import Convergence, Pass
from reconciler.daemon.fleet import Fleet
from reconciler.daemon.follower import Follower
from reconciler.daemon.health import Health
from reconciler.daemon.http import serve
from reconciler.daemon.log import configure
from reconciler.daemon.memory import exempt_memory, settle_memory, use_one_arena
from reconciler.daemon.mending import Mending
from reconciler.daemon.monitor import Monitor
from reconciler.daemon.news import News
from reconciler.daemon.outcome import Outcome, Outcomes
from reconciler.daemon.suspects import Suspects
from reconciler.daemon.tamper import TamperWatch
from reconciler.daemon.trigger import Trigger, Work
from reconciler.daemon.watchers import Watchers
from reconciler.engine.lock import host_lock
from reconciler.engine.uncollected import uncollected
from reconciler.errors import PlumbError, RepositoryError
from reconciler.host import Host
from reconciler.host.service_checks import Unhealthy, checks
from reconciler.host.sharing import Joined
from reconciler.model.network import HOST_NETNS
from reconciler.observe.drift_log import DriftReport
from reconciler.source.watch import RefWatcher

log = logging.getLogger(__name__)

T = TypeVar("T")
REPORTS_KEPT = 1000
OPEN_FILES = 1 << 16
COLLECT_EVERY_S = 15.0
GIVE_BACK_EVERY_S = 60.0
SETTLE_EVERY_S = 60.0


def run(config: Config) -> int:
    """Raises Busy if another daemon or command holds this host, and what the start needs: PermissionMissing and so on.

    Returns 0 when it was asked to end.
    """
    configure(config.log_format)
    use_one_arena()
    _allow_open_files()
    config.run_directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    with host_lock(config.run_directory / "lock", "plumb daemon"):
        asyncio.run(Service(config).main())
    return 0


def _allow_open_files() -> None:
    """As many as a host with thousands of workloads needs: each has two links, which the daemon holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, OPEN_FILES)), hard))


class Service:
    def __init__(self, config: Config) -> None:
        self.config = config
        self.started = datetime.now(UTC)
        self.drift: deque[DriftReport] = deque(maxlen=REPORTS_KEPT)
        self.repairs = 0
        self.last_pass_ms = 0.0
        self.error: PlumbError | None = None
        self.converging = True
        self.outcomes = Outcomes()
        self.suspects = Suspects()
        self._unsettled = False
        self._again: asyncio.TimerHandle | None = None
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")

    async def on_host(self, function: Callable[..., T], *arguments: Any) -> T:
        """Runs it in the writer thread, after what was asked for before and what was touched by then."""

        def work() -> T:
            self.mending.run()
            return function(*arguments)

        return await asyncio.get_running_loop().run_in_executor(self._writer, work)

    async def main(self) -> None:
        self.trigger = Trigger()
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        self.host = await asyncio.get_running_loop().run_in_executor(self._writer, Host, self.config, nullcontext())
        self.mending = Mending(self.host, self.suspects, self._writer.submit, self.trigger.poke_threadsafe)
        try:
            await self._run_until(ended)
        finally:
            await self.on_host(self.host.close)
            self._writer.shutdown()

    async def _run_until(self, ended: asyncio.Event) -> None:
        news = News(self.trigger)
        self.host.join(Joined(news.arrived, news.store_is_back))
        await self.on_host(self.host.recover)
        ears = self.trigger, self.suspects, self.mending
        self.tamper = TamperWatch(*ears, self.host.is_our_link, enabled=self.config.attribute_drift)
        self.watchers = Watchers(*ears, self.tamper.ended)
        self.monitor = Monitor(self.host, self.on_host)
        self.convergence = Convergence(self.host, self.suspects, self.mending)
        self.follower = Follower(self.config)
        self.health = Health(self._on_health)
        self.checks = BackendChecks(self._on_checks)
        self.fleet = Fleet(self.host, self.follower, self.health)
        refs = RefWatcher(self.config.repository, self.config.ref, self._on_ref)
        server = await serve(self.config.socket, self.config.group, Api(self).respond)
        always = (self._converge, self._audit, self._collect, self._give_back, self._settle, self.health.run)
        tasks = [asyncio.create_task(one()) for one in always]
        self.trigger.poke("start", commit=True)
        self.trigger.poke("start")
        log.info("started node=%s socket=%s version=%s", self.config.node, self.config.socket, __version__)
        try:
            self.follower.start()
            refs.start()
            finished = asyncio.create_task(ended.wait())
            await asyncio.wait([finished, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            server.close()
            refs.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.monitor.close()
            self.tamper.close()
            self.watchers.close()
            self.health.close()
            self.checks.close()
            await asyncio.to_thread(self.follower.close)
            await asyncio.to_thread(self.fleet.close)
            self.config.socket.unlink(missing_ok=True)
            log.info("ended; what is enforced stays enforced")

    def _on_ref(self, commit: str) -> None:
        """Called in the watcher's thread."""
        self.trigger.poke_threadsafe(f"{self.config.ref} is at {commit[:12] or 'nothing'}", commit=True)

    def _on_health(self) -> None:
        asyncio.get_running_loop().run_in_executor(self._writer, self.fleet.passed, None, self.state)

    def _on_checks(self, unhealthy: Unhealthy) -> None:
        self.host.unhealthy = unhealthy
        self.trigger.poke("backends changed their state", news=True)

    async def _converge(self) -> None:
        while True:
            work = await self.trigger.take()
            with uncollected():  # from the first value that it makes until `exempt_memory`
                await self._pass(work)

    async def _pass(self, work: Work) -> None:
        self.converging = True
        began = time.monotonic()
        log.debug("pass reasons=%s", "; ".join(work.reasons))
        done = await self.on_host(self._guarded, work)
        self.last_pass_ms = (time.monotonic() - began) * 1000
        if done.error is not None and done.outcome is None and str(done.error) != str(self.error):
            log.error("not as it should be error=%s next=%s", done.error, done.error.remedy)
        self.error = done.error
        self.drift.extend(done.drift)
        self.repairs += sum(report.repaired_ms is not None for report in done.drift)
        self.converging = False
        self._try_again_after(done.again_s)
        await self._follow()
        if done.outcome is not None:
            await self._tell(done.outcome)
        with _surviving("telling the other hosts"):
            if self.fleet.is_news(done.outcome, self.state):
                await self.on_host(self.fleet.passed, done.outcome, self.state)
            self.fleet.listen()
            if target := self.host.target:
                self.health.follow(target.facts, target.snapshot.cluster)
        if done.outcome is not None:
            with _surviving("settling memory"):
                self._unsettled = True
                await self.on_host(exempt_memory)

    def _try_again_after(self, seconds: float | None) -> None:
        if self._again is not None:
            self._again.cancel()
        poke = partial(self.trigger.poke, "a commit that failed is tried again", commit=True, again=True)
        self._again = None if seconds is None else asyncio.get_running_loop().call_later(seconds, poke)

    def _guarded(self, work: Work) -> Pass:
        """A pass never ends the daemon: what it raises is its result, and the next pass tries again."""
        try:
            return self.convergence.run(work)
        except Exception as error:
            log.exception("pass failed reasons=%s", "; ".join(work.reasons))
            return Pass(error=PlumbError(f"internal error: {type(error).__name__}: {error}"))

    async def _tell(self, outcome: Outcome) -> None:
        if outcome.result in ("applied", "failed"):
            log.info("commit %s", outcome.line)
        await self.outcomes.publish(outcome)

    async def _follow(self) -> None:
        """Listen to the namespaces and pins that are ours after a pass, and for namespaces that workloads wait for."""
        target = self.host.target
        namespaces = target.namespaces if target is not None else frozenset()
        root = self.config.pin_root
        with _surviving("listening"):
            pins = [root / name for name in ("maps", "programs", "links")]
            absent, cgroups = self.host.absent.namespaces, target.cgroups if target is not None else ()
            self.watchers.listen_to({HOST_NETNS, *namespaces}, pins, absent, cgroups)
            self.tamper.watch(await self.on_host(self.host.watched_maps))
        if target is not None:
            with _surviving("checking backends"):
                self.checks.follow(checks(target.desired.services), self.host.unhealthy)

    async def _audit(self) -> None:
        while True:
            await asyncio.sleep(self.config.audit_interval_s)
            self.trigger.poke("audit")

    async def _collect(self) -> None:
        while True:
            await asyncio.sleep(COLLECT_EVERY_S)
            with _surviving("collecting flows"):
                await self.on_host(self.host.collect_flows)

    async def _give_back(self) -> None:
        while True:
            await asyncio.sleep(GIVE_BACK_EVERY_S)
            with _surviving("giving back identities"):
                await self.on_host(self.host.collect)

    async def _settle(self) -> None:
        while True:
            await asyncio.sleep(SETTLE_EVERY_S)
            if self._unsettled:
                self._unsettled = False
                with _surviving("settling memory"):
                    await self.on_host(settle_memory)

    @property
    def state(self) -> str:
        """In one word: suspended, converging, refused, degraded, held, waiting (for a first commit), converged."""
        if self.host.hold.suspended:
            return "suspended"
        if self.converging:
            return "converging"
        if isinstance(self.error, RepositoryError) and not self.host.base:
            return "waiting"
        if self.error is not None:
            return "refused" if self.convergence.is_refusal(self.error) else "degraded"
        if self.host.absent:
            return "degraded"
        if self.convergence.is_held:
            return "held"
        return "converged"


@contextmanager
def _surviving(doing: str) -> Iterator[None]:
    """What goes wrong beside a pass does not end the daemon."""
    try:
        yield
    except PlumbError as error:
        log.debug("%s failed error=%s", doing, error)
    except Exception:
        log.exception("%s failed", doing)
