"""What people told this host to keep from doing: suspended altogether, or not to go back to a commit.

One small file in the state directory; it outlives restarts, as the wish does.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from reconciler.engine.durable import replace_durably


@dataclass(frozen=True, slots=True)
class Hold:
    """`suspended`: the reason, or '' if not. `held`: the commit that was rolled back; it is not applied again."""

    suspended: str = ""
    held: str = ""


class HoldFile:
    def __init__(self, directory: Path) -> None:
        self._path = directory / "hold.json"

    def read(self) -> Hold:
        """Nothing is held where there is no file. One that cannot be understood means somebody wanted something."""
        try:
            said = json.loads(self._path.read_bytes())
            return Hold(_text(said["suspended"]), _text(said["held"]))
        except FileNotFoundError:
            return Hold()
        except (OSError, ValueError, TypeError, KeyError) as error:
            return Hold(suspended=f"{self._path} cannot be understood: {error!r}")

    def write(self, hold: Hold) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if hold == Hold():
            self._path.unlink(missing_ok=True)
        else:
            replace_durably(self._path, json.dumps(asdict(hold)).encode())


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
