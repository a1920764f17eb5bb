"""A connection into a network namespace of the controller: a lab's host."""

from __future__ import annotations

import shlex
from pathlib import Path

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as LocalConnection

DOCUMENTATION = """
name: netns
short_description: Run tasks in a network namespace of the controller
description:
  - Everything is as with C(local), but for the network namespace; hosts reached this way share one file system.
author: Plumbline
options:
  netns:
    description: Name of the namespace below C(/run/netns).
    type: str
    default: inventory_hostname
    vars:
      - name: inventory_hostname
      - name: ansible_host
  become_success_timeout:
    description: Seconds to wait for become to succeed.
    type: int
    default: 10
    vars:
      - name: ansible_local_become_success_timeout
  become_strip_preamble:
    description: Strip what become printed before the command's own output.
    type: bool
    default: true
    vars:
      - name: ansible_local_become_strip_preamble
extends_documentation_fragment:
  - connection_pipelining
"""


class Connection(LocalConnection):  # type: ignore[misc]
    transport = "netns"

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        """`ip netns exec` would also remount /sys, and so hide cgroups and the BPF file system."""
        path = Path("/run/netns") / self.get_option("netns")
        if not path.exists():
            raise AnsibleConnectionFailure(f"{path}: there is no such network namespace; start the lab: plumb lab up")
        entered = shlex.join(["nsenter", f"--net={path}", "--", "/bin/sh", "-c", cmd])
        result: tuple[int, bytes, bytes] = super().exec_command(entered, in_data, sudoable)
        return result
