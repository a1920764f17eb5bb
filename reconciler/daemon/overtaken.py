"""Pushes that race: the branch that moved while a push was checked, and the commit that a newer one overtook."""

from __future__ import annotations

import re
from pathlib import Path

import git

from reconciler.daemon.outcome import Outcome
from reconciler.errors import RepositoryError
from reconciler.source.watch import current

_NAME = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def refuse_moved(repository: Path, ref: str, old: str) -> None:
    """Raises RepositoryError where the ref is no longer at `old` (zeros: not there), as git would in its own words."""
    now = current(repository, ref) or ""
    if now and now != old:
        raise RepositoryError(
            f"somebody else's push was first: {ref.removeprefix('refs/heads/')} is at {now[:12]} now",
            remedy="fetch and rebase, then push again: git pull --rebase && git push",
        )


def overtaken(commit: str, by: Outcome) -> Outcome:
    """What became of a commit that this host never looked at, because it came to look at a newer one."""
    told = f"a newer commit came first: {by}"
    return Outcome(by.node, commit, "overtaken", by.duration_ms, error=told)


def newer(repository: Path, ref: str, commit: str) -> str:
    """The branch's commit if `commit` lies behind it; '' if it does not, or nothing can be said."""
    head = current(repository, ref)
    if head is None or head == commit or not _NAME.fullmatch(commit):
        return ""
    try:
        with git.Repo(repository, expand_vars=False) as opened:
            return head if opened.is_ancestor(commit, head) else ""
    except (git.exc.GitError, OSError):
        return ""
