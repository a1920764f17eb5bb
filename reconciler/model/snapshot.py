"""A validated commit: everything that its manifests say, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.model.cluster import Cluster, Namespace, Node, Workload
from reconciler.model.policy import PolicyRule
from reconciler.model.policy_test import PolicyTest
from reconciler.model.prefilter import Prefilter
from reconciler.model.service import EndpointSlice, Service


@dataclass(frozen=True, slots=True)
class Warning:
    """Something that is allowed and looks wrong; the form of a fault."""

    path: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: warning: {self.message}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`nodes` and `namespaces` by name; `workloads`, `services` and `slices` by `namespace/name`; `rules`,
    `policy_tests` and `prefilters` in file and line order."""

    commit: str
    cluster: Cluster
    nodes: Mapping[str, Node]
    namespaces: Mapping[str, Namespace]
    workloads: Mapping[str, Workload]
    rules: tuple[PolicyRule, ...]
    warnings: tuple[Warning, ...] = ()
    services: Mapping[str, Service] = field(default_factory=dict)
    slices: Mapping[str, EndpointSlice] = field(default_factory=dict)
    policy_tests: tuple[PolicyTest, ...] = ()
    prefilters: tuple[Prefilter, ...] = ()
