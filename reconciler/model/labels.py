"""Labels with their source, as Cilium writes them: `source:key=value`.

Format: cilium/cilium Documentation/gettingstarted/terminology ("Label Source"). A label without a source in a
selector matches any source.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

NAMESPACE_KEY = "io.kubernetes.pod.namespace"
NAMESPACE_LABELS_PREFIX = "io.cilium.k8s.namespace.labels."
CLUSTER_KEY = "io.cilium.k8s.policy.cluster"


@dataclass(frozen=True, slots=True, order=True)
class Label:
    source: str  # k8s, reserved, cidr, container, any, ...
    key: str
    value: str = ""

    def __str__(self) -> str:
        return f"{self.source}:{self.key}={self.value}" if self.value else f"{self.source}:{self.key}"


LabelSet = frozenset[Label]


def label_set(labels: Iterable[Label]) -> LabelSet:
    """A set is given room for twice as many where it grows label by label, and there is one for each identity; from a
    dict it is made at once (CPython Objects/setobject.c, set_update_internal)."""
    return frozenset(dict.fromkeys(labels))


def parse_label(text: str) -> Label:
    """`k8s:app=web`, `reserved:host`, `app=web` (source `any`)."""
    head, _, value = text.partition("=")
    source, colon, key = head.partition(":")
    return Label(source, key, value) if colon else Label("any", head, value)


@dataclass(frozen=True, slots=True)
class IdentityLabels:
    """Which labels make identities, by prefixes of their keys: those `included` (none: all) and not `excluded`.

    A label of a namespace is meant by its key behind NAMESPACE_LABELS_PREFIX.
    """

    included: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()

    def matter(self, key: str) -> bool:
        return (not self.included or key.startswith(self.included)) and not key.startswith(self.excluded)


EVERY_LABEL = IdentityLabels()


def workload_labels(
    namespace: str,
    labels: Mapping[str, str],
    namespace_labels: Mapping[str, str],
    cluster: str,
    which: IdentityLabels = EVERY_LABEL,
) -> LabelSet:
    """The identity labels of a workload: of its own and its namespace's those that matter; its namespace's name, its
    cluster."""
    own = [Label("k8s", key, value) for key, value in labels.items() if which.matter(key)]
    return label_set((*own, *_of_namespace(namespace, tuple(namespace_labels.items()), cluster, which)))


@lru_cache(maxsize=1 << 12)  # what is the same for all workloads of a namespace is there once
def _of_namespace(
    namespace: str, labels: tuple[tuple[str, str], ...], cluster: str, which: IdentityLabels
) -> tuple[Label, ...]:
    keyed = ((NAMESPACE_LABELS_PREFIX + key, value) for key, value in labels)
    own = (Label("k8s", key, value) for key, value in keyed if which.matter(key))
    return (Label("k8s", NAMESPACE_KEY, namespace), Label("k8s", CLUSTER_KEY, cluster), *own)


def canonical(labels: Iterable[Label]) -> str:
    """One text per label set, whatever its order: what identities are allocated by."""
    return ";".join(map(str, sorted(labels)))
