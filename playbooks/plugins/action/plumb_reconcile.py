"""The controller's side of plumb_reconcile: sends the host what its copy of the policy repository lacks."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

_NAME = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


class ActionModule(ActionBase):  # type: ignore[misc]
    """Asks first, so that a host that has the commit costs one round."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        known = task_vars or {}
        arguments = {name: value for name, value in self._task.args.items() if name != "source"}
        source = self._task.args.get("source") or self._templar.template(known.get("plumb_repository", ""))
        asked = self._execute_module(module_args={**arguments, "negotiate": bool(source)}, task_vars=known)
        if asked.get("lacking"):
            pack = _pack(Path(source).absolute(), str(arguments.get("commit", "")), str(asked["have"]))
            arguments["pack"] = self._send(pack)
            asked = self._execute_module(module_args=arguments, task_vars=known)
        self._remove_tmp_path(self._connection._shell.tmpdir)
        return {**result, **asked}

    def _send(self, pack: bytes) -> str:
        if not self._connection._shell.tmpdir:
            self._make_tmp_path()
        path = self._connection._shell.join_path(self._connection._shell.tmpdir, "commit.pack")
        return str(self._transfer_data(path, pack))


def _pack(repository: Path, commit: str, have: str) -> bytes:
    """Every object of the commit that is not in `have`, which this repository need not know (a forced push)."""
    if not _NAME.fullmatch(commit):
        raise AnsibleActionFail(f"commit is {commit!r}: its full name is needed")
    known = bool(have) and _git(repository, "cat-file", "-e", f"{have}^{{commit}}").returncode == 0
    wanted = f"{commit}\n" + (f"^{have}\n" if known else "")
    done = _git(repository, "pack-objects", "--revs", "--thin", "--stdout", "--quiet", stdin=wanted.encode())
    if done.returncode:
        raise AnsibleActionFail(f"{repository}: commit {commit[:12]} cannot be read: {done.stderr.decode().strip()}")
    return done.stdout


def _git(repository: Path, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", str(repository), *arguments], input=stdin, capture_output=True)
