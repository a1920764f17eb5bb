"""What there is on this host, as plain values for people and programs: endpoints, identities, rows of tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from reconciler.engine.render import Fields
from reconciler.engine.rows import Columns, Rows
from reconciler.engine.table import Table
from reconciler.engine.values import to_plain
from reconciler.host.fields import RowFields, prefix
from reconciler.host.service_listing import services
from reconciler.host.target import Target
from reconciler.model.facts import Endpoint, Facts
from reconciler.model.labels import LabelSet
from reconciler.model.origin import Origin

NAMED = 3  # workloads that stand for an identity in a row
_OF_ROW = ("identity", "endpoint")


class Listing:
    """Of the commit that is applied; without one there are rows and nothing that explains them."""

    def __init__(self, target: Target | None, tables: Mapping[str, Table]) -> None:
        self._target = target
        self._tables = tables
        self._workloads: dict[int, list[str]] | None = None

    def fields(self) -> Fields:
        return RowFields(self.identity_name, self.rule_name)

    def identity_name(self, number: int) -> str:
        """`257 default/web`: the number, and the workloads or the labels behind it."""
        workloads = self._workloads_of(number)
        labels = self._labels(number)
        more = [f"{len(workloads) - NAMED} more"] if len(workloads) > NAMED else []
        named = ", ".join([*workloads[:NAMED], *more]) or " ".join(sorted(map(str, labels)))
        return f"{number} {named}".rstrip()

    def rule_name(self, cookie: int) -> str:
        """`NetworkPolicy/default/web ingress[0] policies/web.yaml:12`, or the cookie in hexadecimal."""
        info = self._target.desired.rules.get(cookie) if self._target else None
        if info is None:
            return f"{cookie:#010x}"
        return f"{info.reference} {info.field} {info.origin.path}:{info.origin.line}"

    def endpoints(self, everywhere: bool = False) -> list[dict[str, Any]]:
        """This node's workloads, by reference; and then those of other nodes, of which less is known."""
        if self._target is None:
            return []
        facts = self._target.facts
        found = (one for one in facts.endpoints.values() if one.node == facts.node)
        shown = [self._endpoint(one) for one in sorted(found, key=lambda one: one.reference)]
        if not everywhere:
            return shown
        return [*shown, *sorted(_remote(facts), key=lambda one: (one["node"], one["workload"]))]

    def identities(self) -> list[dict[str, Any]]:
        if self._target is None:
            return []
        everyone = {**self._target.facts.identities, **self._target.desired.identities}
        return [
            {"identity": number, "labels": sorted(map(str, labels)), "workloads": self._workloads_of(number)}
            for number, labels in sorted(everyone.items())
        ]

    def services(self) -> list[dict[str, Any]]:
        return services(self._target) if self._target else []

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The live rows, each with its origin where the applied commit asked for it."""
        live = self._tables[table].live()
        desired = self._target.desired.tables.get(table) if self._target else None
        origins = _origins(desired)
        fields = self.fields()
        shown = []
        for key, row in _pairs(live):
            origin = origins.get(_hashable(key))
            shown.append(
                {
                    "key": _plain(fields(table, key)),
                    "row": _plain(fields(table, row)),
                    "origin": to_plain(origin) if origin else None,
                }
            )
        return shown

    def _endpoint(self, endpoint: Endpoint) -> dict[str, Any]:
        assert self._target is not None
        workload = self._target.snapshot.workloads[endpoint.reference]
        return {
            "workload": endpoint.reference,
            "node": endpoint.node,
            "identity": endpoint.identity,
            "labels": dict(sorted(workload.labels.items())),
            "addresses": [str(one) for one in (endpoint.address4, endpoint.address6) if one],
            "netns": workload.netns,
            "interface": workload.interface,
            "device": endpoint.ifname,
            "mac": endpoint.mac,
            "policy": "audit" if workload.audit else "enforced",
            "origin": to_plain(workload.origin),
        }

    def _labels(self, number: int) -> LabelSet:
        if self._target is None:
            return frozenset()
        of_host = self._target.desired.identities.get(number)
        return of_host or self._target.facts.identities.get(number, frozenset())

    def _workloads_of(self, number: int) -> list[str]:
        if self._target is None:
            return []
        if self._workloads is None:
            named: defaultdict[int, set[str]] = defaultdict(set)
            facts = self._target.facts
            for one in facts.endpoints.values():
                named[one.identity].add(one.reference)
            for identity, place in zip(*(facts.remote.rows[name].tolist() for name in _OF_ROW), strict=True):
                named[identity].add(facts.remote.names[place])
            self._workloads = {identity: sorted(names) for identity, names in named.items()}
        return self._workloads.get(number, [])


def _remote(facts: Facts) -> Iterator[dict[str, Any]]:
    for one in facts.endpoints.values():
        if one.node != facts.node:
            addresses = [str(address) for address in (one.address4, one.address6) if address]
            yield {"workload": one.reference, "node": one.node, "identity": one.identity, "addresses": addresses}
    remote = facts.remote
    found: dict[int, dict[str, Any]] = {}
    for row in remote.rows:
        place = int(row["endpoint"])
        shown = {"workload": remote.names[place], "node": remote.nodes[place], "identity": int(row["identity"])}
        heard = found.setdefault(place, {**shown, "addresses": [], "origin": to_plain(remote.origins[place])})
        heard["addresses"].append(str(prefix(int(row["high"]), int(row["low"]), 128)))
    yield from found.values()


def _pairs(rows: Rows) -> Iterator[tuple[Any, Any]]:
    if isinstance(rows, Columns):
        yield from zip(rows.keys, rows.values, strict=True)
    else:
        yield from sorted(rows.rows.items(), key=lambda item: str(item[0]))


def _origins(rows: Rows | None) -> dict[Any, Origin]:
    if isinstance(rows, Columns):
        found = ((key.tobytes(), rows.origin(index)) for index, key in enumerate(rows.keys))
        return {key: origin for key, origin in found if origin}
    return dict(rows.origins) if rows else {}


def _hashable(key: Any) -> Any:
    return key.tobytes() if hasattr(key, "tobytes") else key


def _plain(fields: Mapping[str, object]) -> Any:
    """The value alone where it has no name."""
    if set(fields) == {""}:
        return _scalar(fields[""])
    return {name or "value": _scalar(value) for name, value in fields.items()}


def _scalar(value: object) -> Any:
    if isinstance(value, Enum):
        return value.name.lower()
    return value.item() if hasattr(value, "item") else to_plain(value)
