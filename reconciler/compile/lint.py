"""What is valid and looks wrong, as far as it shows only against the rest of a commit.

    `dangling`       a selector, a service or a port that nobody has
    `passed_over`    a CIDR that holds addresses which it does not match
    `shadows`        an entry that changes nothing because of another one
    `unserved`       a Service that answers nobody

A commit without workloads says nothing of who is there: they come from elsewhere, and only CIDRs are judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from reconciler.compile.dangling import Dangling
from reconciler.compile.passed_over import passed_over
from reconciler.compile.population import Population
from reconciler.compile.port_sets import PortSets
from reconciler.compile.shadows import Said, Stated, covered, idle
from reconciler.compile.unserved import unserved
from reconciler.model.cluster import AllowLocalhost, Cluster, Enforcement
from reconciler.model.identity import Reserved
from reconciler.model.policy import PolicyRule, Scope
from reconciler.model.snapshot import Snapshot, Warning


def lint(snapshot: Snapshot, population: Population | None = None) -> tuple[Warning, ...]:
    """Warnings in the order of files and lines. `population` remembers the commit before, and is changed."""
    population = population or Population()
    population.take(snapshot)
    found = [*passed_over(snapshot), *unserved(snapshot, population)]
    found += _of_workloads(snapshot, population) if snapshot.workloads else ()
    warnings = (Warning(origin.path, origin.line, origin.column, message) for origin, message in dict.fromkeys(found))
    return tuple(sorted(warnings, key=lambda warning: (warning.path, warning.line, warning.column)))


def _of_workloads(snapshot: Snapshot, population: Population) -> Iterator[Said]:
    dangling = Dangling(snapshot, population)
    policed: list[tuple[PolicyRule, int]] = []
    for rule in snapshot.rules:
        if rule.scope is Scope.WORKLOADS:
            subjects = population.subjects(rule.subject)
            yield from dangling.rule(rule, subjects)
            if subjects and not rule.audit:
                policed.append((rule, subjects))
    if snapshot.cluster.enforcement is not Enforcement.NEVER:
        ports = PortSets()
        for egress in (False, True):
            yield from _shadows(policed, population, snapshot.cluster, ports, egress=egress)


def _shadows(
    policed: Iterable[tuple[PolicyRule, int]],
    population: Population,
    cluster: Cluster,
    ports: PortSets,
    *,
    egress: bool,
) -> Iterator[Said]:
    entries: list[Stated] = []
    isolated = population.workloads if cluster.enforcement is Enforcement.ALWAYS else 0
    for rule, subjects in policed:
        if rule.isolates_egress if egress else rule.isolates_ingress:
            isolated |= subjects
        for item in rule.egress if egress else rule.ingress:
            peers = population.peers(item.peers)
            if peers and item.ports != () and item.l7 is None:
                entries.append(Stated(rule, item, subjects, peers))
    yield from covered(entries, ports)
    spared = not egress and cluster.allow_localhost is not AllowLocalhost.POLICY
    allowed = population.index.bit(Reserved.HOST) if spared else 0
    yield from idle(entries, isolated, allowed, population.index.everyone, ports)
