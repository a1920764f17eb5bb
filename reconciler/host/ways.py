"""In which way this host takes what others bring to its backends, as it says to them.

A way of the commit that this host's kernel takes only a part of is said as another one: who does not know that one
serves this host's backends without direct return.
"""

from __future__ import annotations

from reconciler.datapath.features import has
from reconciler.model.cluster import GENEVE_OF_ONE_VERSION, Cluster, DirectReturn


def crosses_versions() -> bool:
    """Whether this kernel takes a packet of one IP version out of one of the other."""
    return has("decap_l3")


def way_taken(cluster: Cluster, *, crosses: bool) -> str:
    """`crosses`: as `crosses_versions` says. Without an overlay both headers are of one version in any case."""
    way = cluster.direct_return
    if way is DirectReturn.GENEVE and cluster.network.is_overlay and not crosses:
        return GENEVE_OF_ONE_VERSION
    return way.value
