#!/usr/bin/python
"""Makes the endpoints of a host what a commit says: its workloads' veth pairs, addresses and neighbours."""

from __future__ import annotations

from ansible.module_utils.plumb import run_family

DOCUMENTATION = r"""
module: plumb_endpoint
short_description: A host's workloads' endpoints as a commit has them
description:
  - An endpoint is a workload's veth pair, the addresses in its network namespace, the neighbour entries they need,
    and the row by which packets find it; the tables C(links), C(addresses), C(neighbours) and C(endpoints).
  - What Plumbline did not make is never shown, changed or removed.
extends_documentation_fragment:
  - plumb
  - plumb.family
"""

EXAMPLES = r"""
- name: Connect one workload as the branch says
  plumb_endpoint:
    config:
      - workload: default/web

- name: See all endpoints
  plumb_endpoint:
    state: gathered
  register: endpoints
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
  sample: [{table: links, key: {ifname: lxc3f2a}, row: {mac: "ee:ee:ee:ee:ee:ee", mtu_bytes: 1500}}]
changes:
  description: The plan as text, a line for each table and each row.
  returned: for the states replaced, merged and deleted
  type: list
  elements: str
counts:
  description: For each table that changes, how many rows are added, changed and removed.
  returned: for the states replaced, merged and deleted
  type: dict
  sample: {links: "+1 ~0 -0", addresses: "+2 ~0 -0"}
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
    run_family("endpoint")


if __name__ == "__main__":
    main()
