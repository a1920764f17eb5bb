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
    """The first run finds the host rolled back. Only a checkout has the playbook."""
    stage = scene.stage
    stage.step("ansible-playbook: the host is brought to the commit, and the second run changes nothing")
    if not (PLAYBOOK.exists() and _COMMAND.exists()):
        stage.tell("left out: this installation has no playbooks (they are in a checkout) or no ansible-core")
        return
    scene.expect(_changed(scene) > 0, "the first run changed nothing, though the host was rolled back")
    scene.try_connect("stranger", opens=False)
    scene.expect(_changed(scene) == 0, "the second run is not changed=0")
    stage.proved("hosts without a daemon of their own are trued by Ansible through the same engine: idempotent")


def _changed(scene: Scene) -> int:
    """Runs the playbook and shows its recap; how many tasks changed something."""
    repository = f"PLUMB_REPOSITORY={scene.stage.directory / BARE}"
    configuration = f"ANSIBLE_CONFIG={CHECKOUT / 'ansible.cfg'}"
    output = scene.stage.run(
        *("env", repository, configuration, *_SETTINGS, str(_COMMAND), "-i", str(CHECKOUT / "inventory/plumb.yml")),
        str(PLAYBOOK),
        shown=f"PLUMB_REPOSITORY={BARE} ansible-playbook playbooks/site.yml",
        lines=2,
    )
    found = re.search(r"changed=(\d+)", output)
    scene.expect(found is not None, "the playbook has no recap")
    return int(found[1]) if found else 0
