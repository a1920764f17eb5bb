"""A small commit to warn of, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

from reconciler.compile.lint import lint
from reconciler.model.cluster import NamedPort, Namespace
from reconciler.model.policy import PolicyRule
from reconciler.model.selector import Selector, label_is
from reconciler.model.snapshot import Snapshot

from .worlds import TCP, THERE, app, item, origin, peers, snapshot_of, tcp, workload

WEB = workload("web", {"app": "web", "tier": "front"}, ports=[NamedPort("http", 80, TCP)])
CLIENT = workload("client", {"app": "client"})
DB = workload("db", {"app": "db"}, THERE)
ALL = (WEB, CLIENT, DB)
DEFAULT = Namespace("default", {}, origin("Namespace", "default"))
FROM_CLIENT = item("ingress[0]", peers(app("client")), (tcp(80),))


def commit(*rules: PolicyRule, **cluster: object) -> Snapshot:
    return replace(snapshot_of(ALL, rules, **cluster), namespaces={"default": DEFAULT})


def said(*rules: PolicyRule, **cluster: object) -> list[str]:
    """The messages."""
    return [warning.message for warning in lint(commit(*rules, **cluster))]


def labelled(**labels: str) -> Selector:
    return Selector(tuple(label_is("any", key, value) for key, value in labels.items()))
