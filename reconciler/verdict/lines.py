"""A line of JSON as a case with questions, in any of the forms that public conformance data has.

docs | rules | policies    what is in force; `rules` have the shape of a `spec` and are taken as written
endpoints | pods           the ends: by labels, by namespace and labels, by reserved name, by address. One with labels
                           and an address is a workload there; one that has `policyAuditMode: true` is in audit mode,
                           as a Workload
flows | expect             the questions: a list of flows, or tables of which only the shape is read
from_labels, to_labels     both ends and the one question of a line without the latter two
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from ipaddress import ip_address
from typing import Any

from reconciler.model.cluster import NamedPort
from reconciler.model.identity import Reserved, reserved_labels
from reconciler.model.labels import LabelSet, parse_label, workload_labels
from reconciler.model.policy import PROTOCOLS
from reconciler.source.addresses import multicast_fault
from reconciler.source.workloads import named
from reconciler.verdict.case import CaseError, End, IpAddress, Question, Settings, Standing

_POLICED = (Reserved.HEALTH, Reserved.INIT)  # reserved identities that workloads have
_SKIPPED = "P?"  # cells of a table that ask nothing: no such port, not probed
_NAMES = {name.upper(): number for name, number in PROTOCOLS.items()}
_LAST_PORT = 65535
_KINDS: Mapping[type, str] = {list: "a list", dict: "a mapping", str: "a string", bool: "true or false"}
_DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True, slots=True)
class Flows:
    questions: tuple[Question, ...]
    ingress_only: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """`parts`: combined, ingress, egress -> rows of cells as they were asked; `ports` by destination."""

    protocol: int
    port: str
    parts: Mapping[str, list[str]]


@dataclass(frozen=True, slots=True)
class Tables:
    order: tuple[str, ...]
    tables: Mapping[str, Table]


def policies(line: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """`docs` or `rules`, and the values. Raises CaseError."""
    given = [(key, line[key]) for key in ("docs", "rules", "policies") if line.get(key) is not None]
    if len(given) != 1:
        raise CaseError("one of docs, rules and policies is needed, and only one")
    key, values = given[0]
    return "rules" if key == "rules" else "docs", _typed(values, list, key)


def ends(line: Mapping[str, Any], settings: Settings) -> dict[str, End]:
    """Raises CaseError."""
    namespaces = _typed(line.get("namespaces") or {}, dict, "namespaces")
    if line.get("pods") is not None:
        pods = [_typed(pod, dict, "a pod") for pod in _typed(line["pods"], list, "pods")]
        found = {f"{pod.get('namespace')}/{pod.get('name')}": _pod(pod, namespaces, settings) for pod in pods}
        if len(found) < len(pods):
            raise CaseError("two pods have one name")
        return found
    if line.get("endpoints") is not None:
        ports = _named_ports(line.get("named_ports_tcp"))
        listed = _typed(line["endpoints"], dict, "endpoints")
        return {name: _endpoint(name, value, namespaces, settings, ports) for name, value in listed.items()}
    if "from_labels" in line and "to_labels" in line:
        return {
            "from": _labelled(line["from_labels"], frozenset()),
            "to": _labelled(line["to_labels"], _named_ports(line.get("dst_named_ports_tcp"))),
        }
    raise CaseError("there are neither pods nor endpoints")


def asked(line: Mapping[str, Any], known: Mapping[str, End]) -> Flows | Tables:
    """Raises CaseError."""
    if line.get("flows") is not None:
        flows = [_typed(flow, dict, "a flow") for flow in _typed(line["flows"], list, "flows")]
        return Flows(tuple(_flow(flow, known) for flow in flows))
    if isinstance(line.get("expect"), dict):
        return _tables(line, known)
    if "from_labels" in line and "to_labels" in line:
        question = Question("from", "to", *_protocol_and_port(line))
        return Flows((question,), ingress_only=line.get("direction") == "ingress")
    raise CaseError("there are neither flows nor tables to fill")


def port_at(table: Table, destination: End) -> int | None:
    """A number, or what the destination calls by that name; None if it has no such port."""
    if table.port.isdigit():
        return _port(table.port)
    numbers = (one.port for one in destination.ports if (one.name, one.protocol) == (table.port, table.protocol))
    return min(numbers, default=None)


def cells(form: Tables, known: Mapping[str, End]) -> Iterable[tuple[str, int, int, Question | None]]:
    """Table, row, column and question of every cell that asks something; None: there is no such port."""
    for name, table in form.tables.items():
        for column, destination in enumerate(form.order):
            port = port_at(table, known[destination])
            for row, source in enumerate(form.order):
                if source != destination and any(lines[row][column] not in _SKIPPED for lines in table.parts.values()):
                    question = None if port is None else Question(source, destination, table.protocol, port)
                    yield name, row, column, question


def _pod(pod: Mapping[str, Any], namespaces: Mapping[str, Any], settings: Settings) -> End:
    labels = _namespaced(pod, namespaces, settings)
    address = _address(pod["ip"]) if pod.get("ip") else None
    ports = frozenset(
        NamedPort(str(port.get("name") or ""), _port(port.get("port")), _protocol(port.get("protocol") or "TCP"))
        for port in (_typed(one, dict, "a port of a pod") for one in _typed(pod.get("ports") or [], list, "ports"))
    )
    return End(Standing.POLICED, labels, address=address, ports=ports, audit=_audit(pod))


def _audit(value: Mapping[str, Any]) -> bool:
    audit: bool = _typed(value.get("policyAuditMode") or False, bool, "policyAuditMode")
    return audit


def _endpoint(
    name: str, value: Any, namespaces: Mapping[str, Any], settings: Settings, ports: frozenset[NamedPort]
) -> End:
    end = _typed(value, dict, f"endpoint {name}")
    address = _address(end["ip"]) if end.get("ip") is not None else None
    if end.get("reserved") is not None:
        if others := [key for key in ("labels", "namespace", "ip") if end.get(key) is not None]:
            raise CaseError(f"endpoint {name} has reserved and {others[0]}, which exclude each other")
        return _reserved(end["reserved"], ports)
    if address is not None and end.get("labels") is None and end.get("namespace") is None:
        return End(Standing.OUTSIDE, address=address)
    if isinstance(end.get("labels"), list):
        labelled = _labelled(end["labels"], ports)
        if labelled.reserved and address is not None:
            raise CaseError(f"endpoint {name} has a reserved label and ip, which exclude each other")
        return replace(labelled, address=address, audit=_audit(end))
    labels = _namespaced(end, namespaces, settings)
    return End(Standing.POLICED, labels, address=address, ports=ports, audit=_audit(end))


def _namespaced(value: Mapping[str, Any], namespaces: Mapping[str, Any], settings: Settings) -> LabelSet:
    namespace = str(value.get("namespace") or _DEFAULT_NAMESPACE)
    own = _texts(value.get("labels"), "labels")
    theirs = _texts(namespaces.get(namespace), f"namespace {namespace}")
    return workload_labels(namespace, own, named(namespace, theirs), settings.cluster)


def _labelled(labels: Any, ports: frozenset[NamedPort]) -> End:
    found = _label_set(tuple(map(str, _typed(labels, list, "labels"))))
    for kind, own in _reserved_sets().items():
        if found == own:
            return _reserved_end(kind, ports)
    return End(Standing.POLICED, found, ports=ports)


@cache
def _label_set(labels: tuple[str, ...]) -> LabelSet:
    return frozenset(map(parse_label, labels))


@cache
def _reserved_sets() -> dict[Reserved, LabelSet]:
    return {kind: reserved_labels(kind) for kind in Reserved if kind is not Reserved.UNKNOWN}


def _reserved(name: Any, ports: frozenset[NamedPort]) -> End:
    for kind, labels in _reserved_sets().items():
        if labels == {parse_label(f"reserved:{name}")}:
            return _reserved_end(kind, ports)
    raise CaseError(f'there is no reserved identity "{name}"')


def _reserved_end(kind: Reserved, ports: frozenset[NamedPort]) -> End:
    standing = Standing.POLICED if kind in _POLICED else Standing.OUTSIDE
    return End(Standing.HOST if kind is Reserved.HOST else standing, _reserved_sets()[kind], kind, ports=ports)


def _named_ports(value: Any) -> frozenset[NamedPort]:
    listed = _typed(value or {}, dict, "named ports")
    return frozenset(NamedPort(name, _port(port), PROTOCOLS["TCP"]) for name, port in listed.items())


def _flow(flow: Mapping[str, Any], known: Mapping[str, End]) -> Question:
    source, destination = (_name(flow.get(side), known) for side in ("from", "to"))
    return Question(source, destination, *_protocol_and_port(flow))


def _tables(line: Mapping[str, Any], known: Mapping[str, End]) -> Tables:
    order = tuple(_name(name, known) for name in _typed(line.get("pod_order") or list(known), list, "pod_order"))
    tables = {}
    for name, value in line["expect"].items():
        protocol, _, port = name.partition("/")
        parts = _typed(value, dict, f"the table {name}")
        for part, rows in parts.items():
            if part not in ("combined", "ingress", "egress"):
                raise CaseError(f"the table {name} has a part {part}")
            _check_shape(f"{name} {part}", rows, len(order))
        tables[name] = Table(_protocol(protocol), port, parts)
    return Tables(order, tables)


def _check_shape(what: str, rows: Any, size: int) -> None:
    square = isinstance(rows, list) and all(isinstance(row, str) and len(row) == size for row in rows)
    if not square or len(rows) != size:
        raise CaseError(f"the table {what} must have {size} rows of {size} characters")


def _name(value: Any, known: Mapping[str, End]) -> str:
    name: str = _typed(value, str, "the name of an endpoint")
    if name not in known:
        raise CaseError(f'there is no endpoint "{name}"')
    return name


def _protocol_and_port(value: Mapping[str, Any]) -> tuple[int, int]:
    return _protocol(value.get("proto") or value.get("protocol")), _port(
        0 if value.get("port") is None else value["port"]
    )


def _protocol(name: Any) -> int:
    number = _NAMES.get(str(name).upper())
    if number is None:
        raise CaseError(f'unknown protocol "{name}": one of {", ".join(_NAMES)} is expected')
    return number


def _port(value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        value = int(value)
    if type(value) is not int or not 0 <= value <= _LAST_PORT:  # a boolean is no number here
        raise CaseError(f"port {json.dumps(value)} is no number from 0 to {_LAST_PORT}")
    return value


def _address(value: Any) -> IpAddress:
    address = ip_address(_typed(value, str, "ip"))
    if fault := multicast_fault(address):
        raise CaseError(fault)
    return address


def _texts(value: Any, what: str) -> dict[str, str]:
    given = _typed({} if value is None else value, dict, what)
    return {key: _typed(part, str, f"{key} of {what}") for key, part in given.items()}


def _typed(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        raise CaseError(f"{what} must be {_KINDS[kind]}")
    return value
