"""Numeric security identities: the reserved ones, and the ranges that the others come from.

Numbers and ranges are Cilium's (cilium/cilium pkg/identity/numericidentity.go), so that they mean the same in the
tools around it.
"""

from __future__ import annotations

from enum import IntEnum

from reconciler.model.labels import Label, LabelSet


class Reserved(IntEnum):
    UNKNOWN = 0  # in a policy row: any peer
    HOST = 1
    WORLD = 2
    UNMANAGED = 3
    HEALTH = 4
    INIT = 5
    REMOTE_NODE = 6
    KUBE_APISERVER = 7
    INGRESS = 8
    WORLD_IPV4 = 9
    WORLD_IPV6 = 10


FIRST_CLUSTER = 256
LAST_CLUSTER = 65535
FIRST_LOCAL = 1 << 24  # identities of CIDRs: numbered by each host for itself


def reserved_labels(identity: Reserved) -> LabelSet:
    """`reserved:host` and the like. The world of one family is not `reserved:world`, as in Cilium with both families;
    the entity `world` stands for all three."""
    return frozenset((Label("reserved", identity.name.lower().replace("_", "-")),))
