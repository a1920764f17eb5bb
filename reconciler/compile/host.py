"""One host's desired rows, out of a commit and what the host knows.

The order matters once: which rules select a local workload is found first, because only what those rules ask for
(CIDRs, named ports) gets rows here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter

from reconciler.compile.backends import Backends
from reconciler.compile.budget import Budget
from reconciler.compile.cache import CompileCache
from reconciler.compile.contents import Content
from reconciler.compile.cookies import RuleInfo, cookies
from reconciler.compile.devices import device_rows
from reconciler.compile.entries import Entries, named_ports
from reconciler.compile.identities import Asked, all_labels, asked
from reconciler.compile.ipcache import columns, member_rows, neighbours, other_rows, table, with_remote
from reconciler.compile.members import Members, addresses, members
from reconciler.compile.networks import Networks, networks
from reconciler.compile.outside import outside_rows
from reconciler.compile.policy import policy
from reconciler.compile.prefilter import prefilter
from reconciler.compile.routes import node_rows, workload_routes
from reconciler.compile.service_direct import unreturned
from reconciler.compile.service_versions import Given
from reconciler.compile.services import services
from reconciler.compile.sockets import socket_rows
from reconciler.compile.stance import Context, Subject, unrecorded
from reconciler.compile.tables import AskedRow, tables
from reconciler.compile.underlay import underlay_rows, unreached
from reconciler.engine.remembered import Remembered
from reconciler.engine.rows import Columns, DictRows, Rows
from reconciler.errors import CompileError
from reconciler.model import overlay
from reconciler.model.cluster import Workload
from reconciler.model.facts import Endpoint, Facts
from reconciler.model.health import is_health
from reconciler.model.identity import FIRST_LOCAL, Reserved, reserved_labels
from reconciler.model.labels import Label, LabelSet
from reconciler.model.policy import PolicyRule
from reconciler.model.snapshot import Snapshot, Warning

DEVICE_TABLES = (
    "links", "overlays", "tunnels", "addresses", "routes", "rules", "neighbours", "sysctls", "endpoints",
    "attachments", "cgroups", "carriers", "devices", "plain",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Judging:
    """What judges packets: the rows, and what stands behind their numbers.

    rules       cookie -> what it stands for
    labels      identity -> labels, of every identity that can be a peer here
    subjects    identity -> what its rows are made from, of every identity that is judged here
    context     what else they are made from; its index belongs to the cache and changes with the next compile
    """

    ipcache: Columns
    policy: Columns
    rules: Mapping[int, RuleInfo]
    labels: Mapping[int, LabelSet]
    subjects: Mapping[int, Subject]
    context: Context


_PLACE = attrgetter("namespace", "name", "netns", "interface", "labels", "ports", "address4", "address6", "cgroup")
_SAID = ("node", "ports", "audit")  # what rows are made of, of a workload whose identity is known

Local = Mapping[str, tuple[Workload, Endpoint]]  # workload reference -> workload and what it was given
RulesOf = Mapping[int, tuple[PolicyRule, ...]]  # shared identity -> the rules that select it


@dataclass(frozen=True, slots=True)
class Desired:
    """tables      name -> rows, for every table but `programs`
    rules       cookie -> what it stands for
    identities  identity -> labels, of those that only this host has (CIDRs and refined ones)
    complete    false while something is unknown: then nothing may be pruned
    services    what each service that is served is made from
    """

    commit: str
    tables: Mapping[str, Rows]
    rules: Mapping[int, RuleInfo]
    identities: Mapping[int, LabelSet]
    complete: bool
    warnings: tuple[Warning, ...] = ()
    services: Mapping[str, Given] = field(default_factory=dict)


def compile_host(
    snapshot: Snapshot, facts: Facts, cache: CompileCache, programs: Mapping[str, str], budget: Budget | None = None
) -> Desired:
    """Everything that the host `facts.node` should hold. `programs`: name -> digest.

    Pure: the cache decides only how long it takes. Neither `snapshot` nor `facts` may be changed afterwards.
    Raises CompileError: see the modules that make the tables.
    """
    local = _local(snapshot, facts)
    judging = compile_judging(snapshot, facts, cache, budget)
    balancing = services(snapshot, facts, cache.services, budget)
    guarded = Reserved.HOST in judging.subjects
    return Desired(
        snapshot.commit,
        {
            **_devices(snapshot, facts, local, programs, cache, guarded=guarded),
            "ipcache": judging.ipcache,
            "policy": judging.policy,
            "prefilter": prefilter(snapshot, facts.node, cache.prefilter, budget),
            **balancing.tables(),
        },
        judging.rules,
        {number: of_number for number, of_number in judging.labels.items() if number >= FIRST_LOCAL},
        facts.complete and len(local) == sum(one.node == facts.node for one in snapshot.workloads.values()),
        snapshot.warnings + tuple(_warnings(judging.subjects, snapshot, facts)),
        balancing.given,
    )


def compile_judging(snapshot: Snapshot, facts: Facts, cache: CompileCache, budget: Budget | None = None) -> Judging:
    """Only what judges the packets of the host `facts.node`. Pure as `compile_host`, and raises the same errors."""
    budget = budget or Budget()
    local = _local(snapshot, facts)
    contents = cache.contents.of(snapshot.rules)
    rules_of = cache.matcher.match(snapshot.rules, contents, _labels(local, facts) | _host_labels(snapshot, facts))
    rules = _in_order(snapshot.rules, rules_of)
    backends = Backends(snapshot.services, snapshot.slices)
    wanted = asked((rule for rule in rules if contents[id(rule)].asks), backends)
    refined, cidrs = _identities(snapshot, facts, wanted, cache)
    labels = all_labels(facts, refined, cidrs)
    subjects, names = _subjects(local, refined, labels, rules_of)
    if rules_of[Reserved.HOST]:
        subjects[Reserved.HOST] = Subject(rules_of[Reserved.HOST], frozenset(), host=True)
        names[Reserved.HOST] = f"node {facts.node}"
    context = _context(snapshot, refined, labels, rules, contents, backends, cache)
    policies = policy(subjects, names, context, budget, cache.policy)
    rows = _ipcache(snapshot, facts, wanted, refined, cidrs, cache, budget)
    return Judging(rows, policies, context.cookies.infos, labels, subjects, context)


def _local(snapshot: Snapshot, facts: Facts) -> Local:
    """Workloads of this host that were given what they need."""
    return {
        key: (workload, facts.endpoints[key])
        for key, workload in snapshot.workloads.items()
        if workload.node == facts.node and key in facts.endpoints
    }


def _labels(local: Local, facts: Facts) -> dict[int, LabelSet]:
    """shared identity -> labels, of local workloads that rules can select. Raises CompileError if one has none yet."""
    labels = {}
    for workload, endpoint in local.values():
        if is_health(workload):
            continue
        if endpoint.identity not in facts.identities:
            raise CompileError(f"{workload.origin}: identity {endpoint.identity} of {workload.reference} has no labels")
        labels[endpoint.identity] = facts.identities[endpoint.identity]
    return labels


def _host_labels(snapshot: Snapshot, facts: Facts) -> dict[int, LabelSet]:
    """As `_labels`, of the host itself: what policies for nodes select it by."""
    node = snapshot.nodes.get(facts.node)
    own = (Label("k8s", key, value) for key, value in node.labels.items()) if node else ()
    return {int(Reserved.HOST): reserved_labels(Reserved.HOST) | frozenset(own)}


def _in_order(rules: Sequence[PolicyRule], rules_of: RulesOf) -> tuple[PolicyRule, ...]:
    selecting = {id(rule) for matching in rules_of.values() for rule in matching}
    return tuple(rule for rule in rules if id(rule) in selecting)


def _identities(snapshot: Snapshot, facts: Facts, wanted: Asked, cache: CompileCache) -> tuple[Members, Networks]:
    asking = (facts, wanted.blocks, wanted.names)
    said = (list(snapshot.workloads), *_columns(snapshot.workloads.values(), _SAID), *asking)
    refined = cache.members.get(said, partial(members, snapshot.workloads, *asking))
    others = neighbours(snapshot, facts)
    elsewhere = frozenset(cidr for node in others for cidr in (node.cidr4, node.cidr6) if cidr is not None)
    found = (frozenset(wanted.networks), elsewhere, wanted.blocks)
    return refined, cache.networks.get(found, partial(networks, *found))


def _columns(workloads: Collection[Workload], fields: Iterable[str]) -> Iterator[list[object]]:
    """Field by field: a tuple for each workload, remembered, would take twice as much."""
    return ([*map(attrgetter(field), workloads)] for field in fields)


def _ipcache(
    snapshot: Snapshot,
    facts: Facts,
    wanted: Asked,
    refined: Members,
    cidrs: Networks,
    cache: CompileCache,
    budget: Budget,
) -> Columns:
    inputs = (refined.members, facts.host_addresses)
    own = cache.member_rows.get(inputs, partial(member_rows, *inputs))
    others = other_rows(snapshot, facts, cidrs.numbers, wanted.networks)
    rows = [row for row, _ in others]
    found = cache.ipcache.get((*inputs, rows, budget), partial(table, own, rows, budget))
    workloads = snapshot.workloads
    known = columns(found, (workloads[one.key].origin for one in refined.members), [origin for _, origin in others])
    return with_remote(known, facts.remote, refined.remote, budget)


def _subjects(
    local: Local, refined: Members, labels: Mapping[int, LabelSet], rules_of: RulesOf
) -> tuple[dict[int, Subject], dict[int, str]]:
    """Every identity that packets of local workloads can have, with its rules; and the first workload of each."""
    subjects: dict[int, Subject] = {}
    names: dict[int, str] = {}
    init = reserved_labels(Reserved.INIT)
    for member in refined.members:
        number = member.identity
        if member.local and number not in subjects:
            name = member.key
            ports = refined.ports.get(number, frozenset())
            workload, endpoint = local[name]
            if is_health(workload):
                subjects[number] = Subject((), frozenset(), health=True)
            else:
                subjects[number] = Subject(rules_of[endpoint.identity], ports, init <= labels[number])
            names[number] = name
    return subjects, names


def _context(
    snapshot: Snapshot,
    refined: Members,
    labels: Mapping[int, LabelSet],
    rules: tuple[PolicyRule, ...],
    contents: Mapping[int, Content],
    backends: Backends,
    cache: CompileCache,
) -> Context:
    cache.index.update(labels)
    return Context(
        cache.index,
        Entries(cache.index, named_ports(refined.ports, cache.index), backends),
        contents,
        cookies(rules, contents, snapshot.cluster),
        snapshot.cluster.enforcement,
        snapshot.cluster.allow_localhost,
    )


def _devices(
    snapshot: Snapshot,
    facts: Facts,
    local: Local,
    programs: Mapping[str, str],
    cache: CompileCache,
    *,
    guarded: bool,
) -> dict[str, DictRows]:
    node = snapshot.nodes.get(facts.node)
    mtu_bytes = overlay.mtu_bytes(snapshot.cluster, node) if node else snapshot.cluster.mtu_bytes
    cache.devices = {key: cache.devices.get(key) or Remembered() for key in local}
    rows = []
    for key, (workload, endpoint) in local.items():
        inputs = (endpoint, mtu_bytes, dict(programs))
        known = cache.devices[key].get((_PLACE(workload), *inputs), partial(_workload_rows, workload, *inputs))
        rows.append(tuple([row._replace(origin=workload.origin) for row in known]))
    if node:
        used = {address.version for _, endpoint in local.values() for address in addresses(endpoint)}
        rows.append((*node_rows(node, used), *underlay_rows(snapshot.cluster, node, facts, programs)))
        rows.append(tuple(outside_rows(snapshot, node, facts, programs, guarded=guarded)))
        rows.append(tuple(socket_rows(node, programs)))
    return cache.tables.get((rows,), lambda: tables(DEVICE_TABLES, (row for some in rows for row in some)))


def _workload_rows(
    workload: Workload, endpoint: Endpoint, mtu_bytes: int, programs: Mapping[str, str]
) -> tuple[AskedRow, ...]:
    return (
        *device_rows(workload, endpoint, mtu_bytes, programs),
        *workload_routes(workload, endpoint),
        *socket_rows(workload, programs),
    )


def _warnings(subjects: Mapping[int, Subject], snapshot: Snapshot, facts: Facts) -> Iterator[Warning]:
    silent = {id(rule): rule for one in subjects.values() for rule in unrecorded(one, snapshot.cluster.enforcement)}
    for rule in silent.values():
        yield Warning(
            rule.origin.path,
            rule.origin.line,
            rule.origin.column,
            f"{rule.reference} is in audit mode and other rules are enforced on its subjects: nothing is recorded",
        )
    if node := snapshot.nodes.get(facts.node):
        yield from unreached(snapshot.cluster, node, facts)
        yield from unreturned(snapshot, facts.node)
