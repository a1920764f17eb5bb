"""Time of site.yml over the namespace connection, on 1 and on 4 hosts: the first run, a new commit, nothing to do."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.figures import Figure
from tests.e2e.fleet import POLICY, Fleet, built, copy_of_checkout

NAMES = ("alpha", "beta", "gamma", "delta")
HOSTS = (1, 4)


def measure() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="pt-bench-") as directory:
        checkout = built(copy_of_checkout(Path(directory) / "checkout"))
        for count in HOSTS:
            name = f"playbook.hosts_{count}"
            with _fleet(Path(directory) / f"hosts{count}", checkout, NAMES[:count]) as fleet:
                yield Figure(f"{name}.first", _play(fleet, fleet.names), "s")
                yield Figure(f"{name}.again", _play(fleet, ()), "s")
                fleet.write("policies/web.yaml", POLICY)
                fleet.commit("a policy")
                yield Figure(f"{name}.new_commit", _play(fleet, fleet.names), "s")


def _play(fleet: Fleet, changing: tuple[str, ...]) -> float:
    """Seconds. Raises RuntimeError if it fails, or changes other hosts than these."""
    began = time.monotonic()
    played = fleet.play()
    spent = time.monotonic() - began
    changed = {name for name, tasks in played.changed().items() if tasks}
    if played.code or changed != set(changing):
        raise RuntimeError(f"site.yml changed {sorted(changed)}, not {sorted(changing)}:\n{played.output}")
    return spent


@contextmanager
def _fleet(folder: Path, checkout: Path, names: tuple[str, ...]) -> Iterator[Fleet]:
    folder.mkdir()
    fleet = Fleet(folder, checkout, folder / "plumb", names, ssh=False)
    try:
        fleet.up()
        yield fleet
    finally:
        fleet.down()
        shutil.rmtree(folder)
