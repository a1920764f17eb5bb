"""The demo's act about Ansible: a playbook brings the host to the commit, and the second run has nothing to do."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from reconciler.lab.scene import BARE, Scene

CHECKOUT = Path(__file__).resolve().parents[2]
PLAYBOOK = CHECKOUT / "playbooks" / "site.yml"
_COMMAND = Path(sys.executable).with_name("ansible-playbook")
_SETTINGS = ("ANSIBLE_NOCOLOR=1", "ANSIBLE_LOCALHOST_WARNING=False")


def host_variables(scene: Scene) -> dict[str, str]:
    """What the node's manifest tells Ansible: how a lab's host is reached, and that its daemon is the lab's."""
    return {
        "connection": "netns",
        "host": f"{scene.name}-{scene.node}",
        "plumb_service": "external",
        "plumb_python": sys.executable,
        "plumb_config_path": f"/run/plumb/{scene.node}/config.yaml",
    }


def twice(scene: Scene) -> None:
    """The first run finds the commit rolled back, and must insist on it. Only a checkout has the playbook."""
    stage = scene.stage
    stage.step("ansible-playbook: the host is brought to the commit, and the second run changes nothing")
    if not (PLAYBOOK.exists() and _COMMAND.exists()):
        stage.tell("left out: this installation has no playbooks (they are in a checkout) or no ansible-core")
        return
    scene.expect(_changed(scene, "-e", "plumb_force=true") > 0, "the first run changed nothing after the rollback")
    scene.try_connect("stranger", opens=False)
    scene.expect(_changed(scene) == 0, "the second run is not changed=0")
    stage.proved("Ansible calls the same engine as the daemon; what is true already is left alone")


def _changed(scene: Scene, *options: str) -> int:
    """Runs the playbook and shows its recap; how many tasks changed something."""
    repository = f"PLUMB_REPOSITORY={scene.stage.directory / BARE}"
    configuration = f"ANSIBLE_CONFIG={CHECKOUT / 'ansible.cfg'}"
    output = scene.stage.run(
        *("env", repository, configuration, *_SETTINGS, str(_COMMAND), "-i", str(CHECKOUT / "inventory/plumb.yml")),
        *(str(PLAYBOOK), *options),
        shown=" ".join([f"PLUMB_REPOSITORY={BARE} ansible-playbook playbooks/site.yml", *options]),
        lines=1,
    )
    found = re.search(r"changed=(\d+)", output)
    scene.expect(found is not None, "the playbook has no recap")
    return int(found[1]) if found else 0
