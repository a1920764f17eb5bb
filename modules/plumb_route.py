#!/usr/bin/python
"""Makes the routes and routing rules of a host what a commit says."""

from __future__ import annotations

from ansible.module_utils.plumb import run_family

DOCUMENTATION = r"""
module: plumb_route
short_description: A host's routes and routing rules as a commit has them
description:
  - The tables C(routes) and C(rules), in the host's own network namespace and in those of its workloads.
  - Ownership is the route protocol number 112; routes and rules of others are never shown, changed or removed.
extends_documentation_fragment:
  - plumb
  - plumb.family
"""

EXAMPLES = r"""
- name: Routes and rules as the branch says
  plumb_route:

- name: One route only, and nothing is removed
  plumb_route:
    state: merged
    config:
      - table: routes
        key: {destination: 192.0.2.0/24}
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
  sample: [{table: routes, key: {netns: "", destination: 192.0.2.0/24, table: 254, priority: 0}, row: {ifname: eth0}}]
changes:
  description: The plan as text, a line for each table and each row.
  returned: for the states replaced, merged and deleted
  type: list
  elements: str
counts:
  description: For each table that changes, how many rows are added, changed and removed.
  returned: for the states replaced, merged and deleted
  type: dict
  sample: {routes: "+1 ~0 -0"}
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
    run_family("route")


if __name__ == "__main__":
    main()
