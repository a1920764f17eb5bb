#!/usr/bin/python
"""Makes the veth pairs of a host what a commit says."""

from __future__ import annotations

from ansible.module_utils.plumb import run_family

DOCUMENTATION = r"""
module: plumb_link
short_description: A host's veth pairs as a commit has them
description:
  - The table C(links). A link is ours if it carries the alternative name C(plumb-<name>); others are never shown,
    changed or removed.
extends_documentation_fragment:
  - plumb
  - plumb.family
"""

EXAMPLES = r"""
- name: Take the veth pair of one workload away, while no daemon runs
  plumb_link:
    state: deleted
    config:
      - workload: default/web
"""

RETURN = r"""
before:
  description: The rows that change or go, as they were.
  returned: for the states replaced, merged and deleted
  type: list
  elements: dict
  sample: [{table: links, key: lxc3f2a, row: {mac: "ee:ee:ee:ee:ee:ee", mtu_bytes: 1500}}]
after:
  description: The rows that change or come, as they are now (in check mode, as they would be).
  returned: for the states replaced, merged and deleted
  type: list
  elements: dict
  sample: []
changes:
  description: The plan as text, a line for each table and each row.
  returned: for the states replaced, merged and deleted
  type: list
  elements: str
counts:
  description: For each table that changes, how many rows are added, changed and removed.
  returned: for the states replaced, merged and deleted
  type: dict
  sample: {links: "+0 ~0 -1"}
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
    run_family("link")


if __name__ == "__main__":
    main()
