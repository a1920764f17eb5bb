"""Commands shown as one would type them, with what they print; one that ends otherwise than expected stops all."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.errors import PlumbError

_WIDTH = 110
_TIMEOUT_S = 120.0
_BOLD, _DIM, _GREEN, _RED, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[0m"


@dataclass(slots=True)
class Stage:
    """`directory` is where commands run; `environment` is theirs beside our own."""

    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    _steps: int = 0

    def step(self, title: str) -> None:
        self._steps += 1
        print(f"\n{_paint(_BOLD, f'{self._steps}. {title}')}", flush=True)

    def proved(self, sentence: str) -> None:
        """What the step has shown, when it has."""
        text = textwrap.fill(sentence, _WIDTH, initial_indent="   => ", subsequent_indent="      ")
        print(_paint(_GREEN, text), flush=True)

    def tell(self, text: str) -> None:
        lines = (line.rstrip() for line in text.splitlines())  # git pads what a hook says
        print(textwrap.indent("\n".join(lines), "     "), flush=True)

    def plumb(self, *arguments: str, expect: int = 0, quiet: bool = False) -> str:
        """Our own command, shown as `plumb ...`."""
        shown = shlex.join(["plumb", *arguments])
        return self.run(sys.executable, "-m", "reconciler.cli", *arguments, expect=expect, shown=shown, quiet=quiet)

    def run(self, *command: str, expect: int = 0, shown: str = "", quiet: bool = False, lines: int = 0) -> str:
        """What it printed. Raises PlumbError when it ends otherwise than expected.

        `quiet` shows nothing of it, `lines` only so many of the last lines, but all of a failure.
        """
        text = shown or shlex.join(command)
        if not quiet:
            print(_paint(_DIM, f"   $ {text}"), flush=True)
        result = subprocess.run(
            command,
            cwd=self.directory,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
        failed = result.returncode != expect
        said = result.stdout.strip("\n").splitlines()
        if said and (failed or not quiet):
            self.tell("\n".join(said if failed else said[-lines:]))
        if failed:
            raise PlumbError(f"step {self._steps}: `{text}` exited with {result.returncode}, not {expect}")
        return result.stdout

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


def _paint(colour: str, text: str) -> str:
    plain = os.environ.get("NO_COLOR") or not sys.stdout.isatty()
    return text if plain else f"{colour}{text}{_PLAIN}"
