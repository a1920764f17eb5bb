"""A policy repository in a temporary directory, driven by real git."""

from __future__ import annotations

import subprocess
from pathlib import Path

CLUSTER = "apiVersion: plumbline/v1\nkind: Cluster\nmetadata: {name: demo}\n"
_IDENTITY = ("-c", "user.name=test", "-c", "user.email=test@localhost")


def network_policy(name: str, spec: str = "{podSelector: {}}") -> str:
    return (
        f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: default}}\n"
        f"spec: {spec}\n"
    )


def git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(directory), *_IDENTITY, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def make(directory: Path, files: dict[str, str]) -> str:
    """A new repository with these files as its first commit, whose name it returns."""
    directory.mkdir(parents=True, exist_ok=True)
    git(directory, "init", "--quiet", "--initial-branch=main")
    return commit(directory, files)


def commit(directory: Path, files: dict[str, str | None]) -> str:
    """One more commit with these files, those that are None removed."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
    git(directory, "add", "--all")
    git(directory, "commit", "--quiet", "--allow-empty", "--message", "change")
    return git(directory, "rev-parse", "HEAD")
