"""Flow events for people and for programs: one line of text, one JSON object, with names for the numbers.

Who a number stands for, only the host knows: it passes a `Resolver`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from reconciler.model.labels import LabelSet
from reconciler.model.origin import Origin
from reconciler.observe.flow import FlowEvent, Reason, is_icmp

_COMMIT_DIGITS = 8
_RULE_DECIDES = (Reason.ALLOWED, Reason.POLICY_DEFAULT, Reason.POLICY_DENY, Reason.AUDITED, Reason.NO_PROXY)


class RuleReference(Protocol):
    """What stands behind a cookie: `NetworkPolicy/default/web`, `ingress[0]`, and where that is written."""

    @property
    def reference(self) -> str: ...
    @property
    def field(self) -> str: ...
    @property
    def origin(self) -> Origin: ...


class Resolver(Protocol):
    """Names for numbers. An answer may be missing: the event can be older or newer than what the host knows."""

    def labels(self, identity: int) -> LabelSet | None: ...

    def workload(self, address: IPv4Address | IPv6Address) -> str:
        """`namespace/name` of the workload that has the address, or ''."""
        ...

    def rule(self, cookie: int) -> RuleReference | None: ...


class Nameless:
    """A Resolver that knows nothing: events show numbers only."""

    def labels(self, identity: int) -> LabelSet | None:
        return None

    def workload(self, address: IPv4Address | IPv6Address) -> str:
        return ""

    def rule(self, cookie: int) -> RuleReference | None:
        return None


def to_json(event: FlowEvent, names: Resolver) -> dict[str, object]:
    """The object that `plumb monitor -o json` prints, a line each. Field names are stable.

    `icmp` is there for ICMP only, `tcp_flags` for TCP only; `rule` is null where no rule decided; an unknown workload
    is '', unknown labels are null.
    """
    shown: dict[str, object] = {
        "time": datetime.fromtimestamp(event.time_ns / 1e9, UTC).isoformat(timespec="microseconds"),
        "type": event.type.word,
        "reason": event.reason.word,
        "explanation": event.reason.sentence,
        "side": event.side.word,
        "family": event.family,
        "protocol": event.protocol_name,
        "source": _party(event.source, event.source_port, event.source_identity, names),
        "destination": _party(event.destination, event.destination_port, event.destination_identity, names),
        "reply": event.reply,
        "rule": _rule(event.cookie, names),
        "generation": event.generation,
        "ifindex": event.ifindex,
        "length_bytes": event.length_bytes,
    }
    if is_icmp(event.protocol):
        shown["icmp"] = {"type": event.icmp_type, "code": event.icmp_code, "identifier": event.icmp_identifier}
    if event.protocol_name == "tcp":
        shown["tcp_flags"] = event.tcp_flag_names
    return shown


def to_text(event: FlowEvent, names: Resolver) -> str:
    """One line, local time, with what decided and where that is written."""
    when = datetime.fromtimestamp(event.time_ns / 1e9).strftime("%H:%M:%S.%f")[:-3]
    source = _name(event.source, 0, event.source_identity, names)
    destination = _name(event.destination, event.destination_port, event.destination_identity, names)
    what = event.protocol_name
    if is_icmp(event.protocol):
        what += f" type {event.icmp_type} code {event.icmp_code}"
    if event.reply:
        what += " reply"
    return f"{when} {event.type.word:<7} {source} -> {destination} {what}  {_because(event, names)}"


def _party(address: IPv4Address | IPv6Address, port: int, identity: int, names: Resolver) -> dict[str, object]:
    labels = names.labels(identity)
    return {
        "address": str(address),
        "port": port,
        "identity": identity,
        "labels": None if labels is None else sorted(map(str, labels)),
        "workload": names.workload(address),
    }


def _rule(cookie: int, names: Resolver) -> dict[str, object] | None:
    if not cookie:
        return None
    rule = names.rule(cookie)
    if rule is None:
        return {"cookie": cookie}
    return {
        "cookie": cookie,
        "reference": rule.reference,
        "field": rule.field,
        "path": rule.origin.path,
        "line": rule.origin.line,
        "commit": rule.origin.commit,
    }


def _name(address: IPv4Address | IPv6Address, port: int, identity: int, names: Resolver) -> str:
    """`default/web:80 (id 5678)`; for what is no workload `10.0.0.1:80 (world-ipv4)`."""
    workload = names.workload(address)
    shown = workload or (f"[{address}]" if address.version == 6 and port else str(address))
    if port:
        shown += f":{port}"
    reserved = sorted(label.key for label in names.labels(identity) or () if label.source == "reserved")
    if workload or not reserved:
        return f"{shown} (id {identity})" if identity else shown
    return f"{shown} ({reserved[-1]})"


def _because(event: FlowEvent, names: Resolver) -> str:
    if event.reason not in _RULE_DECIDES or not event.cookie:
        return event.reason.title
    rule = names.rule(event.cookie)
    if rule is None:
        return f"{event.reason.title} by a rule that is no longer there (cookie {event.cookie:08x})"
    field = "" if rule.field in ("", event.side.word) else f" {rule.field}"
    where = f"{rule.origin.path}:{rule.origin.line} @ {rule.origin.commit[:_COMMIT_DIGITS]}"
    return f"{event.reason.title} by {rule.reference}{field}  {where}"
