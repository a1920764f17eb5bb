"""One host's desired rows, out of a commit and what the host knows.

The order matters once: which rules select a local workload is found first, because only what those rules ask for
(CIDRs, named ports) gets rows here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from reconciler.compile.budget import Budget
from reconciler.compile.cache import CompileCache, Remembered
from reconciler.compile.cookies import RuleInfo, cookies
from reconciler.compile.devices import addresses, device_rows
from reconciler.compile.entries import Entries, named_ports
from reconciler.compile.identities import Identities, asked, identities
from reconciler.compile.ipcache import ipcache
from reconciler.compile.policy import policy
from reconciler.compile.routes import node_rows, workload_routes
from reconciler.compile.stance import Context, Subject, unrecorded
from reconciler.compile.tables import AskedRow, tables
from reconciler.engine.rows import Columns, Rows
from reconciler.errors import CompileError
from reconciler.model.cluster import Workload
from reconciler.model.facts import Endpoint, Facts
from reconciler.model.identity import FIRST_LOCAL, Reserved, reserved_labels
from reconciler.model.labels import LabelSet
from reconciler.model.policy import PolicyRule
from reconciler.model.snapshot import Snapshot, Warning

DEVICE_TABLES = ("links", "addresses", "routes", "rules", "neighbours", "sysctls", "endpoints", "attachments")

Local = Mapping[str, tuple[Workload, Endpoint]]  # workload reference -> workload and what it was given
RulesOf = Mapping[int, tuple[PolicyRule, ...]]  # shared identity -> the rules that select it


@dataclass(frozen=True, slots=True)
class Desired:
    """tables      name -> rows, for every table but `programs`
    rules       cookie -> what it stands for
    identities  identity -> labels, of those that only this host has (CIDRs and refined ones)
    complete    false while something is unknown: then nothing may be pruned
    """

    commit: str
    tables: Mapping[str, Rows]
    rules: Mapping[int, RuleInfo]
    identities: Mapping[int, LabelSet]
    complete: bool
    warnings: tuple[Warning, ...] = ()


def compile_host(
    snapshot: Snapshot, facts: Facts, cache: CompileCache, programs: Mapping[str, str], budget: Budget | None = None
) -> Desired:
    """Everything that the host `facts.node` should hold. `programs`: name -> digest.

    Pure: the cache decides only how long it takes. Neither `snapshot` nor `facts` may be changed afterwards.
    Raises CompileError: see the modules that make the tables.
    """
    budget = budget or Budget()
    mine = {key: workload for key, workload in snapshot.workloads.items() if workload.node == facts.node}
    local = {key: (workload, facts.endpoints[key]) for key, workload in mine.items() if key in facts.endpoints}
    rules_of = cache.matcher.match(snapshot.rules, _labels(local, facts))
    rules = _in_order(snapshot.rules, rules_of)
    wanted = asked(rules)
    known = cache.identities.get(
        (snapshot.workloads, facts, wanted), lambda: identities(snapshot.workloads, facts, wanted)
    )
    columns: dict[str, Rows] = {
        "ipcache": cache.ipcache.get(
            (snapshot.workloads, snapshot.nodes, snapshot.cluster, facts, known, rules, budget),
            lambda: ipcache(snapshot, facts, known, rules, budget),
        )
    }
    subjects, names = _subjects(local, known, rules_of)
    columns["policy"], infos = _policy(snapshot, known, rules, subjects, names, cache, budget)
    rows = tables(DEVICE_TABLES, _device_rows(snapshot, facts, local, programs, cache))
    return Desired(
        snapshot.commit,
        {**rows, **columns},
        infos,
        {number: labels for number, labels in known.labels.items() if number >= FIRST_LOCAL},
        facts.complete and len(local) == len(mine),
        snapshot.warnings + tuple(_warnings(subjects, snapshot)),
    )


def _labels(local: Local, facts: Facts) -> dict[int, LabelSet]:
    """shared identity -> labels, of local workloads. Raises CompileError if one has no labels yet."""
    labels = {}
    for workload, endpoint in local.values():
        if endpoint.identity not in facts.identities:
            raise CompileError(f"{workload.origin}: identity {endpoint.identity} of {workload.reference} has no labels")
        labels[endpoint.identity] = facts.identities[endpoint.identity]
    return labels


def _in_order(rules: tuple[PolicyRule, ...], rules_of: RulesOf) -> tuple[PolicyRule, ...]:
    selecting = {id(rule) for matching in rules_of.values() for rule in matching}
    return tuple(rule for rule in rules if id(rule) in selecting)


def _subjects(local: Local, known: Identities, rules_of: RulesOf) -> tuple[dict[int, Subject], dict[int, str]]:
    """Every identity that packets of local workloads can have, with its rules; and the first workload of each."""
    subjects: dict[int, Subject] = {}
    names: dict[int, str] = {}
    init = reserved_labels(Reserved.INIT)
    for workload, endpoint in local.values():
        for address in addresses(endpoint):
            number = known.addresses[address]
            if number not in subjects:
                always = init <= known.labels[number]
                subjects[number] = Subject(rules_of[endpoint.identity], known.ports.get(number, frozenset()), always)
                names[number] = workload.reference
    return subjects, names


def _policy(
    snapshot: Snapshot,
    known: Identities,
    rules: tuple[PolicyRule, ...],
    subjects: Mapping[int, Subject],
    names: Mapping[int, str],
    cache: CompileCache,
    budget: Budget,
) -> tuple[Columns, Mapping[int, RuleInfo]]:
    cache.index.update(known.labels)
    named = cookies(rules, snapshot.cluster)
    context = Context(
        cache.index,
        Entries(cache.index, named_ports(known.ports, cache.index)),
        named,
        snapshot.cluster.enforcement,
        snapshot.cluster.allow_localhost,
    )
    return policy(subjects, names, context, budget, cache.policy), named.infos


def _device_rows(
    snapshot: Snapshot, facts: Facts, local: Local, programs: Mapping[str, str], cache: CompileCache
) -> Iterator[AskedRow]:
    mtu_bytes = snapshot.cluster.mtu_bytes
    cache.devices = {key: cache.devices.get(key) or Remembered() for key in local}
    for key, (workload, endpoint) in local.items():
        inputs = (workload, endpoint, mtu_bytes, dict(programs))
        yield from cache.devices[key].get(inputs, partial(_workload_rows, workload, endpoint, mtu_bytes, programs))
    if node := snapshot.nodes.get(facts.node):
        yield from node_rows(node, (address for _, endpoint in local.values() for address in addresses(endpoint)))


def _workload_rows(
    workload: Workload, endpoint: Endpoint, mtu_bytes: int, programs: Mapping[str, str]
) -> tuple[AskedRow, ...]:
    return (*device_rows(workload, endpoint, mtu_bytes, programs), *workload_routes(workload, endpoint))


def _warnings(subjects: Mapping[int, Subject], snapshot: Snapshot) -> Iterator[Warning]:
    silent = {id(rule): rule for one in subjects.values() for rule in unrecorded(one, snapshot.cluster.enforcement)}
    for rule in silent.values():
        yield Warning(
            rule.origin.path,
            rule.origin.line,
            1,
            f"{rule.reference} is in audit mode and other rules are enforced on its subjects: nothing is recorded",
        )
