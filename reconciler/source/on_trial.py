"""Audit mode of a policy: what it would deny is recorded and passes. An annotation: the public formats have no field.

metadata:
  annotations:
    plumbline/audit: "true"
"""

from __future__ import annotations

from reconciler.source.node import Findings, Node

ANNOTATION = "plumbline/audit"
_VALUES = {"true": True, "false": False}


def is_on_trial(document: Node, findings: Findings) -> bool:
    """Of a policy of any kind."""
    value = document.read("metadata", "annotations", ANNOTATION)
    if value is None:
        return False
    if value not in _VALUES:
        place = document.place_of("metadata", "annotations", ANNOTATION)
        findings.fault(place, f'{ANNOTATION} is "{value}"; allowed are "true" and "false"')
    return _VALUES.get(value, False)
