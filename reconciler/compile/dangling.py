"""Selectors, services and named ports of rules that nobody in the commit answers to, and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from difflib import get_close_matches
from functools import cached_property

from reconciler.compile import wording
from reconciler.compile.population import Population
from reconciler.compile.shadows import Said
from reconciler.model.labels import CLUSTER_KEY, NAMESPACE_KEY
from reconciler.model.policy import CidrPeer, EndpointPeer, Peer, PolicyRule, PortMatch, RuleItem, ServicePeer
from reconciler.model.selector import ANY_SOURCE, Operator, Requirement, Selector
from reconciler.model.snapshot import Snapshot

MAX_HINTS = 20  # a nearest word takes milliseconds to find
MAX_WORDS = 500  # that a word is compared with
_JUDGED_SOURCES = (ANY_SOURCE, "k8s", "reserved")  # of other labels no manifest tells
_RESERVED = "reserved"


class Dangling:
    """Of one commit."""

    def __init__(self, snapshot: Snapshot, population: Population) -> None:
        self._snapshot = snapshot
        self._population = population
        self._hints = 0

    def rule(self, rule: PolicyRule, subjects: int) -> Iterator[Said]:
        """`subjects`: bitmap of the workloads that the rule selects; without any, its entries are not looked at."""
        if not subjects:
            if not any(requirement.source == _RESERVED for requirement in rule.subject.requirements):
                for why in self._nobody(rule.subject):
                    yield rule.origin, f"{rule.reference} selects no workload: {why}"
            return
        for item in rule.ingress:
            yield from self._item(rule, item, subjects)
        for item in rule.egress:
            yield from self._item(rule, item, None)
        for field, selectors in (("fromRequires", rule.requires_ingress), ("toRequires", rule.requires_egress)):
            for selector in selectors:
                for why in self._nobody(selector):
                    yield rule.origin, f"{field} of {rule.reference} leaves nobody: {why}"

    def _item(self, rule: PolicyRule, item: RuleItem, receivers: int | None) -> Iterator[Said]:
        """`receivers`: bitmap of the workloads that its ports are of; None: its peers."""
        for peer in item.peers or ():
            for why in self._absent(peer):
                yield item.origin, f"{item.field} of {rule.reference}: {why}"
        if named := [match for match in item.ports or () if match.name]:
            whom = self._population.peers(item.peers) if receivers is None else receivers
            for why in self._portless(named, whom & self._population.workloads):
                yield item.origin, f"{item.field} of {rule.reference}: {why}"

    def _absent(self, peer: Peer) -> Iterable[str]:
        if isinstance(peer, EndpointPeer):
            return self._nobody(peer.selector)
        return self._no_service(peer) if isinstance(peer, ServicePeer) else ()

    def _nobody(self, selector: Selector) -> Iterable[str]:
        """Why a selector selects nobody; nothing where it selects somebody, or where no manifest tells."""
        if self._population.select(selector) or not self._is_told(selector):
            return ()
        return (self._why(selector),)

    def _is_told(self, selector: Selector) -> bool:
        """Whether manifests tell who has its labels; those of another cluster are told there."""
        return all(
            one.source in _JUDGED_SOURCES and (one.key != CLUSTER_KEY or self._snapshot.cluster.name in one.values)
            for one in selector.requirements
        )

    def _why(self, selector: Selector) -> str:
        namespaces = self._snapshot.namespaces
        for one in selector.requirements:
            if one.key == NAMESPACE_KEY and one.operator is Operator.IN and not one.values & namespaces.keys():
                named = " or ".join(f'"{value}"' for value in sorted(one.values))
                return f"there is no namespace {named}{self._nearest(min(one.values), namespaces)}"
        for one in selector.requirements:
            if not self._population.index.select(Selector((one,))):
                return f"no workload is {wording.requirement(one)}{self._hint(one)}"
        return f"no workload is all of {wording.selector(selector)}"

    def _no_service(self, peer: ServicePeer) -> Iterator[str]:
        services = self._population.backends.services(peer)
        where = f" in namespace {peer.namespace}" if peer.namespace else ""
        if not services and peer.selector is not None:
            yield f"there is no Service with {wording.selector(peer.selector)}{where}"
        elif not services:
            names = {service.name for service in self._snapshot.services.values()}
            yield f'there is no Service "{peer.name}"{where}{self._nearest(peer.name, names)}'
        elif not any(map(self._is_there, self._population.backends.peers(peer))):
            yield f"no workload and no EndpointSlice is behind {', '.join(one.reference for one in services)}"

    def _is_there(self, endpoint: EndpointPeer | CidrPeer) -> bool:
        return isinstance(endpoint, CidrPeer) or bool(self._population.select(endpoint.selector))

    def _portless(self, named: Iterable[PortMatch], destinations: int) -> Iterator[str]:
        protocols: defaultdict[str, list[int]] = defaultdict(list)
        for match in named:
            protocols[match.name].append(match.protocol)
        for name, numbers in protocols.items() if destinations else ():
            if not any(self._population.having(name, number) & destinations for number in numbers):
                yield f'no workload at the receiving end has a port called "{name}"'

    def _hint(self, one: Requirement) -> str:
        """The nearest value of its label, or the nearest label, that a workload has."""
        values = self._words.get(one.key)
        if values and one.operator is Operator.IN:
            return self._nearest(min(one.values), values)
        return "" if values else self._nearest(one.key, self._words)

    def _nearest(self, word: str, known: Collection[str]) -> str:
        self._hints += 1
        if self._hints > MAX_HINTS or len(known) > MAX_WORDS:
            return ""
        match = get_close_matches(word, known, n=1)
        return f'; did you mean "{match[0]}"?' if match else ""

    @cached_property
    def _words(self) -> dict[str, set[str]]:
        """Label -> its values, of all workloads."""
        found: defaultdict[str, set[str]] = defaultdict(set)
        for workload in self._snapshot.workloads.values():
            for key, value in workload.labels.items():
                found[key].add(value)
        return dict(found)
