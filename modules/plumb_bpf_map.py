#!/usr/bin/python
"""Makes BPF maps of a host what a commit says."""

from __future__ import annotations

from ansible.module_utils.plumb import FAMILY, run_family

DOCUMENTATION = r"""
module: plumb_bpf_map
short_description: A host's BPF maps as a commit has them
description:
  - Rows are compared and written as the datapath has them, map by map.
  - I(maps) chooses the maps; without it all of them that a commit describes.
options:
  maps:
    description: Maps to make as the commit says.
    type: list
    elements: str
    choices: [endpoints, ipcache, policy]
extends_documentation_fragment:
  - plumb
  - plumb.family
"""

EXAMPLES = r"""
- name: Write the address table again
  plumb_bpf_map:
    maps: [ipcache]

- name: One row of it
  plumb_bpf_map:
    maps: [ipcache]
    state: gathered
    config:
      - key: 10.44.0.2
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
  sample: [{table: ipcache, key: 10.44.0.2, row: {identity: 257 default/web, flags: local}}]
changes:
  description: The plan as text, a line for each table and each row.
  returned: for the states replaced, merged and deleted
  type: list
  elements: str
counts:
  description: For each table that changes, how many rows are added, changed and removed.
  returned: for the states replaced, merged and deleted
  type: dict
  sample: {ipcache: "+1 ~0 -0"}
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
    maps = {"type": "list", "elements": "str", "choices": ["endpoints", "ipcache", "policy"]}
    run_family("bpf_map", {**FAMILY, "maps": maps})


if __name__ == "__main__":
    main()
