"""The demo's acts about drift: somebody changes the kernel behind our back, and it is put right while one looks."""

from __future__ import annotations

import json
import time
from typing import Any

from reconciler.lab.scene import Scene

_REPAIRED_WITHIN_S = 10.0
_PAUSE_S = 0.02


def policy_row(scene: Scene) -> None:
    """A row of some workload's policy, with bpftool."""
    stage = scene.stage
    stage.step("Drift: somebody deletes a policy row with bpftool")
    known = len(_reports(scene))
    number, key = _some_row(scene)
    stage.run("bpftool", "map", "delete", "id", str(number), "key", *key)
    _show_repair(scene, known, table="policy", culprit="bpftool")
    scene.expect(_holds(number, key, scene), "the row is not back")
    scene.try_connect("client", opens=True)
    stage.proved("the row is back before anyone misses it, and the report names the process that took it away")


def route(scene: Scene) -> None:
    """The route to a workload, with iproute2."""
    stage = scene.stage
    stage.step("Drift: somebody deletes a route with ip")
    known = len(_reports(scene))
    address = scene.addresses("web")[0]
    inside = ("lab", "exec", "--name", scene.name, scene.node, "--", "ip", "route")
    stage.plumb(*inside, "del", address)
    _show_repair(scene, known, table="routes", culprit="")
    scene.expect(bool(stage.plumb(*inside, "show", address).strip()), "the route is not back")
    stage.proved("the kernel's notification wakes the daemon; it compares, and repairs only what differs")


def _some_row(scene: Scene) -> tuple[int, list[str]]:
    """The id of a subject's map that has rows, and the bytes of its first key."""
    outer = json.loads(scene.stage.run("bpftool", "-j", "map", "dump", "pinned", _policy(scene), quiet=True))
    for entry in outer:
        number = int(entry["inner_map_id"])
        rows = json.loads(scene.stage.run("bpftool", "-j", "map", "dump", "id", str(number), quiet=True))
        if rows:
            return number, rows[0]["key"]
    scene.expect(False, "no policy row to delete")
    raise AssertionError("unreachable")


def _holds(number: int, key: list[str], scene: Scene) -> bool:
    rows = json.loads(scene.stage.run("bpftool", "-j", "map", "dump", "id", str(number), quiet=True))
    return any(row["key"] == key for row in rows)


def _policy(scene: Scene) -> str:
    return str(scene.pins() / "maps" / "policy")


def _show_repair(scene: Scene, known: int, table: str, culprit: str) -> None:
    """Waits for a report beyond the known ones and shows it. Raises PlumbError when none comes."""
    deadline = time.monotonic() + _REPAIRED_WITHIN_S
    while len(_reports(scene)) == known:
        scene.expect(time.monotonic() < deadline, f"no repair of {table} was reported")
        time.sleep(_PAUSE_S)
    scene.stage.plumb("history", "--drift", "-n", "1")
    newest = _reports(scene)[0]
    scene.expect(newest["table"] == table, f"the repair reported is one of {newest['table']}, not of {table}")
    scene.expect(newest["repaired_ms"] is not None, f"{table} was not repaired")
    by = newest["by"]
    scene.expect(not by or culprit in by["command"], f"{by} did not do it")


def _reports(scene: Scene) -> list[dict[str, Any]]:
    """Newest first."""
    found: list[dict[str, Any]] = json.loads(scene.stage.plumb("history", "--drift", "-o", "json", quiet=True))
    return found
