"""`plumb_reconcile`: a host to a commit.

The controller sends what the host's copy of the policy repository lacks; the branch that the daemon follows moves to
the commit only once the commit is known to be good, and goes back if it cannot be applied.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from reconciler.ansible import repository_copy
from reconciler.ansible.hands import Planned, daemon, hands
from reconciler.ansible.settings import settings
from reconciler.ansible.settled import settled
from reconciler.config import Config
from reconciler.errors import PlumbError, RepositoryError, UsageError

Result = dict[str, Any]


def reconcile(parameters: Mapping[str, Any], check: bool) -> Result:
    """Raises any PlumbError; the host is then as it was."""
    config = settings(parameters)
    if parameters["state"] == "gathered":
        return _gathered(config)
    commit, pack = parameters["commit"], parameters.get("pack")
    if not commit:
        raise UsageError("commit is missing: the full name of the commit to converge to")
    if parameters["state"] == "converged":
        return settled(config, commit, float(parameters["wait_s"]))
    if not pack and not repository_copy.has(config.repository, commit):
        if parameters.get("negotiate") and _may_feed(config.repository):
            return {"changed": False, "lacking": True, "have": repository_copy.tip(config.repository, config.ref)}
        raise RepositoryError(
            f"commit {commit[:12]} is not in {config.repository}",
            remedy="fetch it there; Ansible only writes to a copy that it made itself",
        )
    if check:
        return _checked(config, commit, pack)
    return _converged(config, commit, pack, bool(parameters.get("force")))


def _may_feed(repository: Path) -> bool:
    return not repository.exists() or repository_copy.is_fed(repository)


def _gathered(config: Config) -> Result:
    with hands(config, daemon(config)) as by:
        return {"changed": False, "gathered": {"status": by.status(), "endpoints": by.endpoints()}}


def _checked(config: Config, commit: str, pack: str | None) -> Result:
    client = daemon(config)
    with ExitStack() as stack:
        if not config.repository.exists():  # and so no daemon could read it
            client = None
            config = replace(config, repository=stack.enter_context(_passing_copy(config.ref)))
        environment: Mapping[str, str] = {}
        if pack:
            environment = stack.enter_context(repository_copy.quarantine(config.repository, Path(pack), commit))
        by = stack.enter_context(hands(config, client))
        return _result(config, by.plan(commit, environment), commit)


@contextmanager
def _passing_copy(ref: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="plumb-") as folder:
        repository = Path(folder) / "policy.git"
        repository_copy.create(repository, ref)
        yield repository


def _converged(config: Config, commit: str, pack: str | None, force: bool) -> Result:
    if not config.repository.exists():
        repository_copy.create(config.repository, config.ref)
    if pack:
        repository_copy.take(config.repository, Path(pack), commit)
    with hands(config, daemon(config)) as by:
        planned = by.plan(commit, {})
        result = _result(config, planned, commit)
        if not result["changed"]:
            return result
        held = _held(by.status(), commit, force)
        with _followed(config, commit):
            result["duration_ms"] = by.converge(commit)
        if held:
            by.release()
    return result


def _held(status: Mapping[str, Any], commit: str, force: bool) -> bool:
    """Whether the commit was rolled back here. What people decided on the host itself wins: they know why."""
    if status["suspended"]:
        raise PlumbError(f"{status['node']} is suspended: {status['suspended']}", remedy="on the host: plumb resume")
    held = bool(status["held"] == commit)
    if held and not force:
        raise PlumbError(
            f"commit {commit[:12]} was rolled back on {status['node']}, and is held back there",
            remedy="converge to a newer commit, or to this one all the same: -e plumb_force=true",
        )
    return held


@contextmanager
def _followed(config: Config, commit: str) -> Iterator[None]:
    """The branch that the daemon follows is at the commit while the block runs, and afterwards if it succeeds."""
    if repository_copy.is_fed(config.repository):
        with repository_copy.following(config.repository, config.ref, commit):
            yield
        return
    at = repository_copy.tip(config.repository, config.ref)
    if at != commit:
        raise RepositoryError(
            f"{config.ref} of {config.repository} is at {at[:12] or 'nothing'}, not at {commit[:12]}: the daemon would"
            " go back to it, and Ansible only moves a branch of a copy that it made itself",
            remedy="push the commit to that branch, or converge to what it is at",
        )
    yield


def _result(config: Config, planned: Planned, commit: str) -> Result:
    moves = repository_copy.is_fed(config.repository) and repository_copy.tip(config.repository, config.ref) != commit
    lines = planned.text.splitlines()
    head = f"{config.node}: {planned.base[:12] or 'nothing'} -> {commit[:12]}"
    changed = bool(planned.counts) or planned.base != commit or moves
    return {
        "changed": changed,
        "before": {"commit": planned.base},
        "after": {"commit": commit},
        "counts": dict(planned.counts),
        "changes": lines,
        "diff": {"prepared": "\n".join([head, *(lines or ["no row changes"])]) + "\n"} if changed else {},
    }
