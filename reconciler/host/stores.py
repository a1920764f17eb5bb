"""The store of the applied commit's cluster; and while a commit with another one is applied, that one's too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from reconciler.config import Config
from reconciler.host.sharing import Joined, Sharing
from reconciler.model.cluster import Cluster, DirectReturn


class Stores:
    """Each is opened when a commit first names it, and closed by `keep`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._joined: Joined | None = None
        self._open: dict[object, Sharing] = {}

    @property
    def has_joined(self) -> bool:
        return self._joined is not None

    def join(self, joined: Joined) -> None:
        """Be one of the cluster's nodes in every store that is opened from now on."""
        self._joined = joined

    def of(self, cluster: Cluster) -> Sharing:
        key = _key(cluster)
        if key not in self._open:
            self._open[key] = Sharing(self._config, cluster, self._joined)
        return self._open[key]

    @contextmanager
    def looked_at(self, cluster: Cluster) -> Iterator[Sharing]:
        """For a preview: one that is not open is read and left, and nobody hears of this host in it."""
        if _key(cluster) in self._open:
            yield self.of(cluster)
            return
        with closing(Sharing(self._config, cluster)) as sharing:
            yield sharing

    def keep(self, cluster: Cluster | None) -> None:
        """Leave all but this one's; without one all but the last that was opened."""
        if self._open:
            staying = _key(cluster) if cluster else next(reversed(self._open))
            for key in self._open.keys() - {staying}:
                self._open.pop(key).close()

    def tell(self, way: DirectReturn) -> None:
        """To everybody: in which way this host takes what is brought to its backends."""
        for sharing in self._open.values():
            sharing.tell(way)

    def close(self) -> None:
        for sharing in self._open.values():
            sharing.close()


def _key(cluster: Cluster) -> object:
    return cluster.name, cluster.id, cluster.store, cluster.clusters
