"""An inventory whose hosts are the Node manifests of a policy repository at a commit."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible.utils.vars import load_extra_vars

if TYPE_CHECKING:
    from reconciler.model.cluster import Node
    from reconciler.model.snapshot import Snapshot

DOCUMENTATION = """
name: plumb_nodes
short_description: Hosts straight from the Node manifests of a policy repository
description:
  - Reads a policy repository at a commit, from its git objects, whether it is bare or not; no work tree is used.
  - Each C(Node) is a host. Each of its labels makes a group C(<key>_<value>), its cluster the group
    C(cluster_<name>), and all of them together the group C(plumb).
  - C(Node.spec.ansible) holds the host's variables. There C(host), C(port), C(user), C(connection) and C(become) are
    short for C(ansible_host) and so on. A host without C(host) is reached by the first of C(Node.spec.addresses), if
    it has any. Values are taken literally, braces in them are no templates.
  - The groups C(plumb_wave_01), C(plumb_wave_02) and so on are the hosts in the waves of C(Cluster.spec.rollout.waves).
  - The group C(plumb) has the variables C(plumb_repository), C(plumb_revision), C(plumb_commit) and C(plumb_cluster),
    each host C(plumb_node).
  - The commit is validated as a whole; what is wrong in it is reported with file, line and column.
author: Plumbline
options:
  plugin:
    description: The name of this plugin.
    required: true
    choices: [plumb_nodes]
  repository:
    description:
      - Path of the policy repository on the controller; a relative one starts at this file.
      - The environment variable E(PLUMB_REPOSITORY) wins over it, the extra variable C(plumb_repository) over both.
    required: true
    type: str
  revision:
    description:
      - Branch, tag or commit to read.
      - The environment variable E(PLUMB_REVISION) wins over it, the extra variable C(plumb_revision) over both.
    default: main
    type: str
"""

EXAMPLES = """
# inventory/plumb.yml
plugin: plumb_nodes
repository: /srv/plumb/policy.git
revision: main

# nodes/alpha.yaml in the policy repository: host alpha in the groups plumb, cluster_demo and rack_r1
# apiVersion: plumbline/v1
# kind: Node
# metadata:
#   name: alpha
#   labels: {rack: r1}
# spec:
#   cidrs: [10.44.0.0/24]
#   ansible: {host: 192.0.2.11, user: root}
"""

_GROUP = "plumb"
_SHORT = ("host", "port", "user", "connection", "become")


class InventoryModule(BaseInventoryPlugin):  # type: ignore[misc]
    NAME = "plumb_nodes"

    def verify_file(self, path: str) -> bool:
        return bool(super().verify_file(path)) and path.endswith(("plumb.yml", "plumb.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        extra = load_extra_vars(loader)
        given = self._override("repository", extra)
        where = Path(given or Path(path).resolve().parent / self.get_option("repository")).resolve()
        revision = self._override("revision", extra) or self.get_option("revision")
        snapshot, commit = _load(where, revision)
        self._fill(snapshot, {"repository": str(where), "revision": revision, "commit": commit})

    def _override(self, name: str, extra: Mapping[str, Any]) -> str:
        return str(extra.get(f"plumb_{name}") or os.environ.get(f"PLUMB_{name.upper()}") or "")

    def _fill(self, snapshot: Snapshot, source: Mapping[str, str]) -> None:
        self.inventory.add_group(_GROUP)
        for name, value in {**source, "cluster": snapshot.cluster.name}.items():
            self.inventory.set_variable(_GROUP, f"plumb_{name}", value)
        for node in snapshot.nodes.values():
            self.inventory.add_host(node.name, _GROUP)
            for group in _groups(snapshot.cluster.name, node):
                self.inventory.add_child(self.inventory.add_group(group), node.name)
            for name, value in variables(node).items():
                self.inventory.set_variable(node.name, name, value)
        for number, hosts in enumerate(waves(list(snapshot.nodes), snapshot.cluster.waves), 1):
            group = self.inventory.add_group(f"{_GROUP}_wave_{number:02}")
            for host in hosts:
                self.inventory.add_child(group, host)


def _load(where: Path, revision: str) -> tuple[Snapshot, str]:
    """Imports on first use: Ansible loads every enabled plugin, and most runs of it may read another inventory."""
    if importlib.util.find_spec("reconciler") is None:  # not installed beside Ansible: this checkout serves
        sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from reconciler.errors import PlumbError
    from reconciler.source import loading, repository

    try:
        commit = repository.resolve(where, revision)
        return loading.load(where, commit, loading.Cache()), commit
    except PlumbError as error:
        remedy = f"\nnext: {error.remedy}" if error.remedy else ""
        raise AnsibleParserError(f"{where} at {revision}: {error}{remedy}") from error


def _groups(cluster: str, node: Node) -> Iterator[str]:
    named = [("cluster", cluster), *sorted(node.labels.items())]
    return (_group_name(f"{key}_{value}" if value else key) for key, value in named)


def _group_name(text: str) -> str:
    """Ansible allows what Python allows in a name."""
    return "".join(letter if letter.isalnum() else "_" for letter in text)


def waves(hosts: Sequence[str], sizes: Sequence[int | str]) -> Iterator[Sequence[str]]:
    """Hosts of the first waves, one for each size; the last size holds for all that come after it (`serial`)."""
    at = 0
    for size in sizes:
        count = size if isinstance(size, int) else max(1, len(hosts) * int(size.rstrip("%")) // 100)
        if at < len(hosts):
            yield hosts[at : at + count]
        at += count


def variables(node: Node) -> dict[str, Any]:
    """What the manifest says of how to reach the host, under Ansible's names, and everything else it says there."""
    given = {(f"ansible_{name}" if name in _SHORT else name): value for name, value in node.ansible.items()}
    address = node.address4 or node.address6
    reached = {"ansible_host": str(address)} if address else {}
    return {"plumb_node": node.name, **reached, **given}
