"""The files of a tree as one snapshot, or as what is wrong: in each of them or, if nothing is, between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reconciler.errors import Fault, ManifestError
from reconciler.model.cluster import Cluster, Namespace, Node, Workload
from reconciler.model.origin import Origin
from reconciler.model.policy import PolicyRule
from reconciler.model.policy_test import PolicyTest
from reconciler.model.prefilter import Prefilter
from reconciler.model.service import EndpointSlice, Service
from reconciler.model.snapshot import Snapshot, Warning
from reconciler.source import prefilter_claims, references, service_claims, service_places, stamp
from reconciler.source.manifests import Manifest
from reconciler.source.references import Documents, Placed
from reconciler.source.workloads import named


def assemble(
    commit: str, files: Sequence[tuple[str, Manifest]], faults: Iterable[Fault] = (), warnings: Iterable[Warning] = ()
) -> Snapshot:
    """The snapshot of the files, given as (path, what it says) in the order of their paths.

    `faults` and `warnings` are what was found before any file was read. Raises ManifestError with every fault of
    theirs; what concerns several documents is only looked at once each of them is right.
    """
    found = [*faults, *(Fault(path, *finding) for path, manifest in files for finding in manifest.faults)]
    documents, doubles = references.sort(
        Placed(path, document) for path, manifest in files for document in manifest.documents
    )
    found += doubles
    if not found:
        found = [
            *references.check(documents),
            *service_claims.service_faults(documents),
            *service_places.place_faults(documents),
            *prefilter_claims.prefilter_faults(documents),
        ]
    if found:
        raise ManifestError(found)
    of_files = [Warning(path, *finding) for path, manifest in files for finding in manifest.warnings]
    return _snapshot(commit, documents, [*warnings, *of_files])


def _snapshot(commit: str, documents: Documents, warnings: list[Warning]) -> Snapshot:
    unnamed = references.unnamed_namespaces(documents)
    warnings += references.namespace_warnings(unnamed)
    warnings += references.slice_warnings(documents)
    warnings += references.address_warnings(documents)
    warnings += service_claims.service_warnings(documents)
    warnings.sort(key=lambda warning: (warning.path, warning.line, warning.column))
    cluster = _stamped(documents.clusters[0], Cluster, commit)
    namespaces = {name: _stamped(placed, Namespace, commit) for name, placed in documents.namespaces.items()}
    namespaces |= {name: _implied(name, placed, commit) for name, placed in unnamed.items()}
    return Snapshot(
        commit=commit,
        cluster=cluster,
        nodes={name: _stamped(placed, Node, commit) for name, placed in documents.hosts.items()},
        namespaces=namespaces,
        workloads={name: _stamped(placed, Workload, commit) for name, placed in documents.workloads.items()},
        rules=_rules(documents, cluster, commit),
        warnings=tuple(warnings),
        services={name: _stamped(placed, Service, commit) for name, placed in documents.services.items()},
        slices={name: _stamped(placed, EndpointSlice, commit) for name, placed in documents.slices.items()},
        prefilters=tuple(_stamped(placed, Prefilter, commit) for placed in documents.prefilters.values()),
        policy_tests=tuple(_stamped(placed, PolicyTest, commit) for placed in documents.policy_tests.values()),
    )


def _stamped(placed: Placed, kind: type[stamp.Own], commit: str) -> stamp.Own:
    document = placed.document
    assert isinstance(document.content, kind)
    document.content = stamped = stamp.own(document.content, placed.path, commit)
    return stamped


def _implied(name: str, placed: Placed, commit: str) -> Namespace:
    """A namespace that only its inhabitants tell of."""
    origin = Origin(placed.path, placed.document.place.line, "Namespace", name, commit)
    return Namespace(name, named(name, {}), origin)


def _rules(documents: Documents, cluster: Cluster, commit: str) -> tuple[PolicyRule, ...]:
    settings = stamp.Settings(cluster.name, cluster.ipblock_matches_workloads)
    found: list[PolicyRule] = []
    for placed in documents.policies:
        rules = tuple(stamp.policy(rule, placed.path, commit) for rule in references.rules_of(placed))
        placed.document.content = rules
        found += [stamp.bind(rule, settings) for rule in rules] if placed.document.unbound else rules
    return tuple(found)
