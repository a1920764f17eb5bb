#!/usr/bin/python
"""Makes the policy of a host what a commit says: verdicts between identities, and addresses to identities."""

from __future__ import annotations

from ansible.module_utils.plumb import run_family

DOCUMENTATION = r"""
module: plumb_policy
short_description: A host's policy rows as a commit has them
description:
  - The tables C(policy), with a verdict for subject, direction, peer and port, and C(ipcache), with the identity
    behind each address.
  - All rows of one task count from the same packet on (the datapath's generation is switched once).
extends_documentation_fragment:
  - plumb
  - plumb.family
"""

EXAMPLES = r"""
- name: See what would become of a branch, without a daemon or a change
  plumb_policy:
    state: rendered
    commit: feature/web

- name: Write the verdicts about one workload again
  plumb_policy:
    config:
      - table: policy
        workload: default/web
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
  sample:
    - table: policy
      key: {subject: 257 default/web, direction: ingress, peer: 258 default/client, port: 80/tcp}
      row: {value: allow}
changes:
  description: The plan as text, a line for each table and each row.
  returned: for the states replaced, merged and deleted
  type: list
  elements: str
counts:
  description: For each table that changes, how many rows are added, changed and removed.
  returned: for the states replaced, merged and deleted
  type: dict
  sample: {policy: "+3 ~1 -0"}
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
    run_family("policy")


if __name__ == "__main__":
    main()
