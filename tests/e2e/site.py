"""A policy repository with its server side and a lab's names, for one test: nothing clashes with another test's."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler.config import PIN_ROOT, RUN_ROOT
from reconciler.kernel import netns
from reconciler.lab.etcd import directory
from reconciler.lab.lifecycle import down
from reconciler.lab.processes import inside_any
from reconciler.lab.registry import LABS, find
from reconciler.lab.traffic import answers
from reconciler.source.hooks import init_bare, init_repository

CHECKOUT = Path(__file__).resolve().parents[2]
PORT = 80
_numbers = itertools.count()
_GIT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "test",
    "GIT_AUTHOR_EMAIL": "test@localhost",
    "GIT_COMMITTER_NAME": "test",
    "GIT_COMMITTER_EMAIL": "test@localhost",
}

Finished = subprocess.CompletedProcess[str]


@dataclass(slots=True)
class Site:
    """`node` is the name of its first node; workloads' namespaces are `pt-NAME-...`; `tree` is the work tree."""

    tree: Path
    bare: Path
    name: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def node(self) -> str:
        return f"{self.name}-alpha"

    @property
    def run_directory(self) -> Path:
        return RUN_ROOT / self.node

    def namespace(self, workload: str) -> str:
        return f"/run/netns/{self.name}-{workload}"

    def plumb(self, *arguments: str) -> Finished:
        return subprocess.run(self.command(*arguments), **_PIPES, env=self._environment(), timeout=120)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "reconciler.cli", *arguments]

    def up(self, *arguments: str) -> None:
        finished = self.plumb("lab", "up", str(self.bare), "--name", self.name, *arguments)
        assert finished.returncode == 0, finished.stderr

    def down(self) -> Finished:
        return self.plumb("lab", "down", "--name", self.name)

    def json(self, *arguments: str) -> Any:
        finished = self.plumb(*arguments, "-o", "json")
        assert finished.returncode == 0, finished.stderr
        return json.loads(finished.stdout)

    def git(self, *arguments: str) -> Finished:
        return subprocess.run(["git", *arguments], cwd=self.tree, env=self._environment(), **_PIPES, timeout=120)

    def write(self, path: str, text: str) -> None:
        (self.tree / path).parent.mkdir(exist_ok=True)
        (self.tree / path).write_text(text)

    def commit(self) -> str:
        """The commit's full name."""
        self.git("add", "-A")
        assert self.git("commit", "-q", "-m", "test").returncode == 0
        return self.git("rev-parse", "HEAD").stdout.strip()

    def push(self) -> Finished:
        """Commits what is there and pushes it; what the hooks said is on standard error."""
        self.commit()
        return self.git("push", "-q", "origin", "main")

    def addresses(self, workload: str) -> list[str]:
        found = self.json("endpoint", "show", workload)["addresses"]
        assert isinstance(found, list)
        return found

    def connects(self, workload: str, port: int = PORT) -> list[bool]:
        """Whether `workload` reaches `web`, over IPv4 and over IPv6."""
        return [answers(self.namespace(workload), address, port) for address in self.addresses("web")]

    def left_over(self) -> list[str]:
        """What of the lab is there: nothing after it was taken down."""
        names = (f"{self.name}-", f"{self.name}_")
        spaces = [str(path) for path in Path("/run/netns").glob("*") if path.name.startswith(names)]
        paths = [RUN_ROOT / self.node, PIN_ROOT / self.node, LABS / f"{self.name}.json", directory(self.name)]
        processes = [
            path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if self.name.encode() in _content(path)
        ]
        return [*spaces, *(str(path) for path in paths if path.exists()), *processes]

    def processes(self) -> list[int]:
        """Those that run in the lab's namespaces."""
        lab = find(self.name)
        return inside_any(lab.namespaces) if lab else []

    def clean_up(self) -> None:
        lab = find(self.name)
        if lab is not None:
            down(lab, lambda line: None)
        for path in Path("/run/netns").glob(f"{self.name}-*"):  # made by a test itself
            netns.remove(str(path))

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **_GIT, "PYTHONPATH": str(CHECKOUT), "PLUMB_NODE": self.node, **self.environment}


_PIPES: dict[str, Any] = {"capture_output": True, "text": True, "check": False, "stdin": subprocess.DEVNULL}


def make_site(directory: Path) -> Site:
    """The example with names of its own, pushed; its policy is part of it."""
    name = f"pt-{os.getpid()}-{next(_numbers)}"
    site = Site(directory / f"{name}-tree", directory / f"{name}.git", name)
    init_repository(site.tree)
    init_bare(site.bare, site.tree)
    for path in (*site.tree.glob("nodes/*.yaml"), *site.tree.glob("workloads/*.yaml")):
        text = re.sub(r"\bnetns: (\w+)", rf"netns: {name}-\1", path.read_text())
        path.write_text(re.sub(r"\balpha\b", site.node, text))
    pushed = site.push()
    assert pushed.returncode == 0, pushed.stderr
    return site


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # ended meanwhile
        return b""
