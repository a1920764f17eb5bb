"""Rules on what is said over a connection: what Cilium's parser refuses in them.

Source: cilium/cilium pkg/policy/api: rule_validation.go, http.go, kafka.go, fqdn.go.
"""

from __future__ import annotations

import json
import re

from reconciler.model.policy import L7Rules
from reconciler.source.node import Findings, Node
from reconciler.source.phrases import nearest

KINDS = ("http", "kafka", "dns", "l7")
_TLS_FIELDS = ("serverNames", "terminatingTLS", "originatingTLS")
_REGEX_FIELDS = ("path", "method", "host")
_KAFKA_ROLES = ("produce", "consume")
_KAFKA_KEYS = (
    "produce fetch offsets metadata leaderandisr stopreplica updatemetadata controlledshutdown offsetcommit "
    "offsetfetch findcoordinator joingroup heartbeat leavegroup syncgroup describegroups listgroups saslhandshake "
    "apiversions createtopics deletetopics deleterecords initproducerid offsetforleaderepoch addpartitionstotxn "
    "addoffsetstotxn endtxn writetxnmarkers txnoffsetcommit describeacls createacls deleteacls describeconfigs "
    "alterconfigs"
)
_KAFKA_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,255}\Z")
_NAME = re.compile(r"[-a-zA-Z0-9_.]+\Z")
_PATTERN = re.compile(r"[-a-zA-Z0-9_.*]+\Z")


def of_ports(entry: Node) -> L7Rules | None:
    """What a proxy must check for one entry of `toPorts`; None if no proxy is asked for: an empty list asks nothing."""
    rules = entry.get("rules")
    for kind in ("http", "kafka", "dns"):
        if rules is not None and rules.items(kind):
            return _rules(kind, rules.read(kind))
    if rules is not None and rules.read("l7proto"):
        return _rules(rules.read("l7proto"), rules.read("l7", default=[]))
    if entry.get("listener") is not None:
        return _rules("listener", entry.read("listener"))
    encrypted = {field: entry.read(field) for field in _TLS_FIELDS if entry.read(field)}
    return _rules("tls", encrypted) if encrypted else None


def _rules(parser: str, rules: object) -> L7Rules:
    return L7Rules(parser, json.dumps(rules, sort_keys=True, separators=(",", ":")))


def check_ports(entry: Node, *, ingress: bool, findings: Findings) -> None:
    """One entry of `toPorts` with everything in it that concerns a proxy."""
    rules = entry.get("rules")
    kinds = [kind for kind in KINDS if rules is not None and rules.get(kind) is not None]
    _check_tls(entry, kinds, ingress=ingress, findings=findings)
    if rules is None:
        return
    if "dns" in kinds:
        _check_dns_ports(entry, ingress=ingress, findings=findings)
    if kinds:
        _check_transport(entry, dns="dns" in kinds, findings=findings)
    if rules.get("l7") is not None and not rules.read("l7proto"):
        findings.fault(rules.key_place("l7"), "l7 needs an l7proto beside it")
    if len(kinds) > 1:
        findings.fault(rules, f"{' and '.join(kinds)} cannot stand in one entry: write an entry for each")
    check_rules(rules, findings)


def _check_tls(entry: Node, kinds: list[str], *, ingress: bool, findings: Findings) -> None:
    names = entry.items("serverNames")
    if names and kinds and entry.get("terminatingTLS") is None:
        findings.fault(entry.key_place("serverNames"), "serverNames cannot go with rules unless TLS is terminated")
    for name in names:
        if not name.value:
            findings.fault(name, "a server name is empty")
    if entry.get("listener") is not None:
        if ingress:
            findings.fault(entry.key_place("listener"), "listener is for egress only")
        if kinds:
            findings.fault(entry.key_place("listener"), "listener cannot go with rules")


def _check_dns_ports(entry: Node, *, ingress: bool, findings: Findings) -> None:
    rules = entry.get("rules")
    at = rules.key_place("dns") if rules else entry.place
    if ingress:
        findings.fault(at, "rules on DNS are for egress only")
    if not entry.items("ports"):
        findings.fault(at, "rules on DNS need port 53 beside them")
    for port in entry.items("ports"):
        first, last = port.read("port", default=""), port.read("endPort", default=0)
        if first.isascii() and first.isdigit() and last > int(first):
            findings.fault(port.place_of("endPort"), "rules on DNS cannot go with a range of ports")


def _check_transport(entry: Node, *, dns: bool, findings: Findings) -> None:
    for port in entry.items("ports"):
        protocol = port.read("protocol", default="").upper() or "ANY"
        if protocol != "TCP" and not dns:
            findings.fault(
                port.place_of("protocol"), f"rules on what is said need TCP, not {protocol}; only those on DNS do not"
            )
        if port.read("port", default="") in ("", "0"):
            findings.fault(port.place_of("port"), "rules on what is said need a port other than 0")


def check_rules(rules: Node, findings: Findings) -> None:
    """The entries of each kind."""
    for rule in rules.items("http"):
        _check_http(rule, findings)
    for rule in rules.items("kafka"):
        _check_kafka(rule, findings)
    for rule in rules.items("dns"):
        check_dns_name(rule, findings)
    for rule in rules.items("l7"):
        if "" in rule.keys:
            findings.fault(rule.key_place(""), "a key is empty")


def _check_http(rule: Node, findings: Findings) -> None:
    for field in _REGEX_FIELDS:
        node = rule.get(field)
        if node is None:
            continue
        try:
            re.compile(node.value)
        except re.error as e:
            findings.fault(node, f'{field} "{node.value}" is not a regular expression: {e.msg}')
    for header in rule.items("headers"):
        if not header.value.partition(":")[0].strip():
            findings.fault(header, "a header has no name")


def _check_kafka(rule: Node, findings: Findings) -> None:
    role, key = rule.read("role", default=""), rule.read("apiKey", default="")
    if role and key:
        findings.fault(rule.key_place("role"), "role and apiKey exclude each other")
    if role and role.lower() not in _KAFKA_ROLES:
        findings.fault(rule.place_of("role"), f'role "{role}" is not one of {", ".join(_KAFKA_ROLES)}')
    if key and key.lower() not in _KAFKA_KEYS.split():
        findings.fault(rule.place_of("apiKey"), f'unknown apiKey "{key}"; {nearest(key, _KAFKA_KEYS.split())}')
    version = rule.read("apiVersion", default="")
    if version and not (version.isascii() and version.isdigit() and int(version) <= 32767):
        findings.fault(rule.place_of("apiVersion"), f'apiVersion "{version}" is not a number from 0 to 32767')
    topic = rule.read("topic", default="")
    if topic and not _KAFKA_TOPIC.match(topic):
        findings.fault(rule.place_of("topic"), "topic may hold up to 255 letters, digits, ., _ and -")


def check_dns_name(rule: Node, findings: Findings) -> None:
    """An entry of `dns` or `toFQDNs`: a name or a pattern."""
    name, pattern = rule.read("matchName", default=""), rule.read("matchPattern", default="")
    if bool(name) == bool(pattern):
        findings.fault(rule, "one of matchName and matchPattern is needed, and only one")
    if name and not _NAME.match(name):
        findings.fault(rule.place_of("matchName"), f'"{name}" is not a DNS name')
    if pattern and not _PATTERN.match(pattern):
        findings.fault(rule.place_of("matchPattern"), f'"{pattern}" may hold letters, digits, -, _, . and * only')
