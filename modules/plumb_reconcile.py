#!/usr/bin/python
"""Trues a host to a commit of the policy repository, as one transaction."""

from __future__ import annotations

from ansible.module_utils.plumb import HOST, run_reconcile

DOCUMENTATION = r"""
module: plumb_reconcile
short_description: A host to a commit
description:
  - Makes everything that a host holds for Plumbline (links, addresses, routes, maps, programs) what a commit says. If a
    write or a probe fails, the host is as it was before, and so is the branch that it follows.
  - Where a daemon answers it does the work, otherwise the module does it.
  - The host's copy of the policy repository needs no access to a server; what it lacks comes from the controller. Only
    a copy that this module made is written to.
  - A host that is suspended, or on which the commit was rolled back, is left alone with an error that says so.
options:
  state:
    description:
      - C(present) converges.
      - C(converged) waits until the host's daemon reports that it runs the commit and that nothing is amiss.
      - C(gathered) returns the host's status and its endpoints.
    type: str
    default: present
    choices: [present, converged, gathered]
  wait_s:
    description: How many seconds C(converged) waits at most.
    type: int
    default: 30
  commit:
    description: Full name of the commit. Needed for C(present) and C(converged).
    type: str
    default: ""
  force:
    description: Converge even to a commit that was rolled back on the host, and hold it back no longer.
    type: bool
    default: false
  source:
    description:
      - Path of a policy repository on the controller that has the commit. The default is the variable
        C(plumb_repository), which the inventory sets. The controller's side of this module uses it.
    type: path
  pack:
    description: A git pack on the host that completes the commit; the controller's side of this module brings it.
    type: path
  negotiate:
    description: Return what is lacking instead of failing; for the controller's side of this module.
    type: bool
    default: false
extends_documentation_fragment:
  - plumb
"""

EXAMPLES = r"""
- name: Wait until the daemon agrees
  plumb_reconcile:
    state: converged
    commit: "{{ plumb_commit }}"

- name: True the host to the commit of the inventory
  plumb_reconcile:
    commit: "{{ plumb_commit }}"

- name: See how the host is
  plumb_reconcile:
    state: gathered
  register: host
"""

RETURN = r"""
before:
  description: The commit that the host was at; an empty name if none.
  returned: for the state present
  type: dict
  sample: {commit: 3f2a9c51b8d04c1fa7c1e9f3a7a52f60b7d4e7aa}
after:
  description: The commit that the host is at (in check mode, would be).
  returned: for the state present
  type: dict
  sample: {commit: 9b1e07d3c5a84a4c8f0d6d1c2b3a495867768594}
counts:
  description: For each table that changes, how many rows are added, changed and removed.
  returned: for the state present
  type: dict
  sample: {policy: "+3 ~1 -0"}
changes:
  description: The plan as text, a line for each table and each row.
  returned: for the state present
  type: list
  elements: str
duration_ms:
  description: How long the transaction took.
  returned: when something was changed
  type: float
gathered:
  description: C(status), as C(plumb status -o json) shows it, and C(endpoints), the workloads of this host.
  returned: for the state gathered
  type: dict
faults:
  description: What is wrong in the manifests of the commit, each as C(path:line:column).
  returned: on failure
  type: list
  elements: str
exit_code:
  description: The exit code that C(plumb) has for this error.
  returned: on failure
  type: int
"""


def main() -> None:
    run_reconcile(
        {
            **HOST,
            "state": {"type": "str", "default": "present", "choices": ["present", "converged", "gathered"]},
            "wait_s": {"type": "int", "default": 30},
            "force": {"type": "bool", "default": False},
            "source": {"type": "path"},
            "pack": {"type": "path"},
            "negotiate": {"type": "bool", "default": False},
        }
    )


if __name__ == "__main__":
    main()
