"""The demo's acts about policy: a push that changes what packets may do, one that is refused, and the way back."""

from __future__ import annotations

import re
import socket

from reconciler.kernel import netns
from reconciler.lab.scene import WORK_TREE, Scene
from reconciler.lab.traffic import ATTEMPT_TIMEOUT_S, echoes


def before(scene: Scene) -> None:
    scene.stage.step("Packets before: no policy, everybody may connect")
    scene.try_connect("client", opens=True)
    scene.try_connect("stranger", opens=True)
    scene.stage.proved("real TCP connections between namespaces, IPv4 and IPv6, through the BPF datapath")


def push(scene: Scene) -> None:
    """One connection of the stranger is open meanwhile: it must end with the push."""
    stage = scene.stage
    stage.step("git push a policy: only `client` may reach web:80")
    with netns.inside(scene.namespace("stranger")):
        address = (scene.addresses("web")[0], scene.port)
        established = socket.create_connection(address, ATTEMPT_TIMEOUT_S)
    with established:
        scene.expect(echoes(established), "the stranger's connection does not work before the push")
        scene.write_policy(scene.policy)
        stage.tell(scene.policy)
        commit = scene.commit("web: only clients may connect")
        output = stage.run("git", "-C", WORK_TREE, "push", "-q")
        scene.expect(f"applied {commit[:12]}" in output, "the push does not say that the commit was applied")
        scene.expect("policy:" in output, "the push does not show its plan")
        stage.proved("the push shows the plan of each node, table by table, then what became of it and how fast")
        stage.step("Packets after")
        scene.try_connect("client", opens=True)
        scene.try_connect("stranger", opens=False)
        scene.expect(not echoes(established), "a connection from before the push still works")
        stage.tell("the stranger's connection from before the push: no answer any more")
    stage.proved("the commit is enforced on both families, and it cut what it no longer allows, even when established")


def refused_push(scene: Scene) -> None:
    stage = scene.stage
    stage.step("git push a mistake: it is refused, and nothing changes")
    scene.write_policy(scene.policy.replace("port: 80,", "port: 70000,"))
    scene.commit("web: a port that does not exist")
    output = stage.run("git", "-C", WORK_TREE, "push", "-q", expect=1)
    scene.expect(bool(re.search(r"policies/web\.yaml:\d+:\d+: .*70000", output)), "the refusal names no place")
    stage.run("git", "-C", WORK_TREE, "reset", "-q", "--hard", "@{upstream}")
    scene.try_connect("client", opens=True)
    stage.proved("a mistake is found before it is accepted, with file, line and column; the host never saw it")


def rollback(scene: Scene) -> None:
    stage = scene.stage
    stage.step("Rollback: back to the commit before, at once")
    stage.plumb("rollback")
    scene.try_connect("stranger", opens=True)
    stage.plumb("history")
    stage.proved("the way back is a transaction like the way there; the commit is held until a newer one comes")
