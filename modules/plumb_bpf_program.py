#!/usr/bin/python
"""Makes the BPF programs of a host, and what they are attached to, what a commit says."""

from __future__ import annotations

from ansible.module_utils.plumb import run_family

DOCUMENTATION = r"""
module: plumb_bpf_program
short_description: A host's BPF programs and attachments as a commit has them
description:
  - The tables C(programs), loaded and pinned with the commit's load-time constants, and C(attachments), a program
    at each side of each workload's veth pair, and C(cgroups), those on the hooks of cgroups.
  - Programs of others are never shown, changed or removed.
extends_documentation_fragment:
  - plumb
  - plumb.family
"""

EXAMPLES = r"""
- name: Attach what somebody detached
  plumb_bpf_program:

- name: Which programs run where
  plumb_bpf_program:
    state: gathered
"""

RETURN = r"""
before:
  description: The rows that change or go, as they were.
  returned: for the states replaced, merged and deleted
  type: list
  elements: dict
  sample: []
after:
  description: The rows that change or come, as they are now (in check mode, as they would be).
  returned: for the states replaced, merged and deleted
  type: list
  elements: dict
  sample: [{table: attachments, key: {ifname: lxc3f2a, direction: 0}, row: {program: from_workload}}]
changes:
  description: The plan as text, a line for each table and each row.
  returned: for the states replaced, merged and deleted
  type: list
  elements: str
counts:
  description: For each table that changes, how many rows are added, changed and removed.
  returned: for the states replaced, merged and deleted
  type: dict
  sample: {attachments: "+2 ~0 -0"}
gathered:
  description: The rows that are there, each with its table, key, row, and the document that asked for it.
  returned: for the state gathered
  type: list
  elements: dict
rendered:
  description: The rows that the commit asks for, in the same shape.
  returned: for the state rendered
  type: list
  elements: dict
"""


def main() -> None:
    run_family("bpf_program")


if __name__ == "__main__":
    main()
