"""The main job in under a minute, on this machine: `git push` to real packets, and what keeps them that way.

Every step is checked; the first one that does not show what it should ends the demo with a non-zero exit code. It works
in a temporary directory and in a lab of its own, and leaves nothing of either.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import NoReturn

from reconciler.lab import demo_drift, demo_playbook, demo_policy
from reconciler.lab.lifecycle import down
from reconciler.lab.registry import find, tidy
from reconciler.lab.scene import BARE, WORK_TREE, Scene
from reconciler.lab.traffic import echo_server


def run(keep: bool, name: str) -> int:
    """0; raises what the failing step raises. `name` is the lab's; with `keep` it and its repository stay."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    directory = Path(tempfile.mkdtemp(prefix=f"plumb-{name}-"))
    scene = Scene(name, directory)
    finished = False
    try:
        with ExitStack() as stack:
            _play(scene, stack)
        finished = True
    finally:
        if not (keep and finished):
            _clean_up(scene)
    print(f"\ndone in {scene.stage.seconds:.0f} s; {_left(scene) if keep else 'nothing is left of it'}", flush=True)
    return 0


def _play(scene: Scene, stack: ExitStack) -> None:
    _repository(scene)
    _lab(scene)
    stack.enter_context(echo_server(scene.namespace("web"), scene.port))
    demo_policy.before(scene)
    demo_policy.push(scene)
    demo_policy.refused_push(scene)
    demo_drift.policy_row(scene)
    demo_drift.route(scene)
    demo_policy.rollback(scene)
    demo_playbook.twice(scene)


def _repository(scene: Scene) -> None:
    stage = scene.stage
    stage.step("A policy repository and its server side")
    stage.plumb("init", WORK_TREE, "--bare", BARE)
    scene.rename(demo_playbook.host_variables(scene))
    scene.commit("demo: three workloads, no policy yet")
    stage.run("git", "-C", WORK_TREE, "push", "-q")
    stage.proved("manifests live in git; the server side checks every push, even before any host follows it")


def _lab(scene: Scene) -> None:
    stage = scene.stage
    stage.step("A host with three workloads, each a network namespace")
    stage.plumb("lab", "up", BARE, "--name", scene.name)
    scene.learn_addresses()
    stage.proved("from a commit to devices, addresses, routes and attached programs, without a command on the host")


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """As an exception, so that everything is cleaned up on the way out."""
    raise SystemExit(128 + number)


def _left(scene: Scene) -> str:
    return (
        f"the lab stays up\n  try:    cd {scene.stage.directory} && plumb lab exec client -- ping -c1 web\n"
        f"  remove: plumb lab down --name {scene.name}; rm -r {scene.stage.directory}"
    )


def _clean_up(scene: Scene) -> None:
    lab = find(scene.name)
    if lab is not None:
        down(lab, lambda line: None)
    tidy()
    shutil.rmtree(scene.stage.directory)
