"""The demo's acts about drift: somebody changes the kernel behind our back, and it is put right while one looks."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from reconciler.lab.scene import Scene

_REPAIRED_WITHIN_S = 10.0
_PAUSE_S = 0.02
_GENERATION_BYTES = 4  # struct subject_key, bpf/lib/policy.h


def policy_row(scene: Scene) -> None:
    """A row of some workload's policy, with bpftool."""
    stage = scene.stage
    stage.step("Drift: somebody deletes a policy row with bpftool")
    known = len(_reports(scene))
    before = _policy_rows(scene)
    (_, key), number = next(iter(before.items()))
    stage.run("bpftool", "map", "delete", "id", str(number), "key", *key.split())
    _show_repair(scene, known, table="policy", culprit="bpftool")
    scene.expect(_policy_rows(scene).keys() == before.keys(), "the row is not back")
    scene.try_connect("client", opens=True)
    stage.proved("the row is back before anyone misses it, and the report names the process that took it away")


def route(scene: Scene) -> None:
    """The route to a workload, with iproute2."""
    stage = scene.stage
    stage.step("Drift: somebody deletes a route with ip")
    known = len(_reports(scene))
    address = scene.addresses("web")[0]
    inside = ("lab", "exec", scene.node, "--", "ip", "route")
    stage.plumb(*inside, "del", address)
    _show_repair(scene, known, table="routes", culprit="")
    scene.expect(bool(stage.plumb(*inside, "show", address).strip()), "the route is not back")
    stage.proved("the kernel's notification wakes the daemon; it compares, and repairs only what differs")


def _policy_rows(scene: Scene) -> dict[tuple[str, str], int]:
    """(subject, key), both as bytes in bpftool's notation -> the id of the map that holds the row now."""
    found = {}
    for entry in _dump(scene, "pinned", str(scene.pins() / "maps" / "policy")):
        number = int.from_bytes((int(byte, 16) for byte in entry["value"]), sys.byteorder)
        subject = " ".join(entry["key"][_GENERATION_BYTES:])
        found.update({(subject, " ".join(row["key"])): number for row in _dump(scene, "id", str(number))})
    return found


def _dump(scene: Scene, *which: str) -> list[dict[str, list[str]]]:
    rows: list[dict[str, list[str]]] = json.loads(scene.stage.run("bpftool", "-j", "map", "dump", *which, quiet=True))
    return rows


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
