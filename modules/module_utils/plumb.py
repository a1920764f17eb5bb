"""What the plumb modules share: their common arguments, and how a result or an error of the package becomes theirs."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

HOST = {
    "config_file": {"type": "path"},
    "node": {"type": "str"},
    "repository": {"type": "path"},
    "commit": {"type": "str", "default": ""},
}
TOGETHER = {"required_together": [("node", "repository")], "mutually_exclusive": [("config_file", "node")]}
FAMILY = {
    **HOST,
    "state": {
        "type": "str",
        "default": "replaced",
        "choices": ["replaced", "merged", "deleted", "gathered", "rendered"],
    },
    "config": {
        "type": "list",
        "elements": "dict",
        "options": {"table": {"type": "str"}, "key": {"type": "raw"}, "workload": {"type": "str"}},
    },
}


def run_reconcile(arguments: Mapping[str, Any]) -> None:
    module = AnsibleModule(argument_spec=dict(arguments), supports_check_mode=True, **TOGETHER)
    try:
        from reconciler.ansible.reconcile import reconcile
    except ImportError:
        _missing(module)
    _finish(module, lambda: reconcile(module.params, module.check_mode))


def run_family(family: str, arguments: Mapping[str, Any] = FAMILY) -> None:
    module = AnsibleModule(argument_spec=dict(arguments), supports_check_mode=True, **TOGETHER)
    try:
        from reconciler.ansible.family import converge
    except ImportError:
        _missing(module)
    _finish(module, lambda: converge(family, module.params, module.check_mode))


def _missing(module: AnsibleModule) -> None:
    remedy = (
        "Run the role plumb first, and point ansible_python_interpreter at its interpreter (/opt/plumb/bin/python)."
    )
    module.fail_json(msg=f"{missing_required_lib('plumbline')} {remedy}", exception=traceback.format_exc())


def _finish(module: AnsibleModule, work: Any) -> None:
    """Leaves the module either way."""
    from reconciler.errors import ManifestError, PlumbError

    try:
        result = work()
    except PlumbError as error:
        faults = [str(fault) for fault in error.faults] if isinstance(error, ManifestError) else []
        remedy = f"\nnext: {error.remedy}" if error.remedy else ""
        module.fail_json(msg=f"{error}{remedy}", kind=type(error).__name__, exit_code=error.exit_code, faults=faults)
    module.exit_json(**result)
