"""What the other hosts of the cluster say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.model.facts import NO_REMOTE, RemoteEndpoints
from reconciler.model.labels import LabelSet
from reconciler.store.node_cidrs import Pair as Cidrs
from reconciler.store.registrations import Registration


@dataclass(frozen=True, slots=True)
class Others:
    """registered    node -> its registration, while it lives
    cidrs         node -> CIDRs that were given to it, whether it lives or not
    remote        their endpoints; the same object until something about them changes
    labels        identity -> labels, of every identity of those
    """

    registered: Mapping[str, Registration] = field(default_factory=dict)
    cidrs: Mapping[str, Cidrs] = field(default_factory=dict)
    remote: RemoteEndpoints = NO_REMOTE
    labels: Mapping[int, LabelSet] = field(default_factory=dict)


NOBODY = Others()
