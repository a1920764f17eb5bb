"""What the documentation of the plumb modules has in common."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  config_file:
    description:
      - The host's configuration file. The default is what E(PLUMB_CONFIG) names, or C(/etc/plumb/config.yaml).
    type: path
  node:
    description:
      - Which C(Node) the host is, with I(repository) instead of a file; everything else is as a file without more
        would have it.
    type: str
  repository:
    description:
      - Path of the policy repository on the host; goes with I(node).
    type: path
requirements:
  - Plumbline on the host, in the interpreter that C(ansible_python_interpreter) names; the role C(plumb) installs it.
attributes:
  check_mode:
    description: Makes the same plan and writes nothing.
    support: full
  diff_mode:
    description: Shows the plan, row by row, each with the document that asked for it.
    support: full
author: Plumbline
"""

    FAMILY = r"""
options:
  commit:
    description:
      - Branch, tag or commit whose rows are wanted. The default is the branch that the host follows.
    type: str
    default: ""
  state:
    description:
      - C(replaced) makes the family what the commit says; what the commit does not have is removed.
      - C(merged) adds and changes, and removes nothing.
      - C(deleted) removes the rows of the family, whatever a commit says.
      - C(gathered) returns the rows that are there.
      - C(rendered) returns the rows that the commit asks for. Numbers of identities are those of this host.
      - Git is the only source of truth. A daemon keeps every family as the commit that it follows says, so with a
        daemon C(replaced) and C(merged) take this commit only, and C(deleted) is refused; whoever wants something else
        converges the whole host with M(plumb_reconcile), or stops the daemon.
    type: str
    default: replaced
    choices: [replaced, merged, deleted, gathered, rendered]
  config:
    description:
      - Only these rows; without it, the whole family. Rows are named, never spelled out, since the commit has them.
    type: list
    elements: dict
    suboptions:
      table:
        description: Rows of this table.
        type: str
      key:
        description: Rows with this key, in the shape in which results show it; of a mapping some fields are enough.
        type: raw
      workload:
        description: Rows of this workload, as C(namespace/name).
        type: str
"""
