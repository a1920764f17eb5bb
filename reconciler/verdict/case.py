"""What is asked: ends, the policies in force between them, and flows from one end to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from reconciler.errors import PlumbError
from reconciler.model.cluster import AllowLocalhost, Enforcement, NamedPort
from reconciler.model.identity import Reserved
from reconciler.model.labels import LabelSet
from reconciler.model.policy import PolicyRule

IpAddress = IPv4Address | IPv6Address


class CaseError(PlumbError):
    """A case that cannot be judged as it stands."""

    exit_code = 3


class Standing(Enum):
    """Who judges an end's side of a flow."""

    POLICED = "policed"  # rows do: it is a workload
    HOST = "host"  # nobody does, and nothing is refused: policies for workloads do not select the host
    OUTSIDE = "outside"  # somebody else does, if anybody


@dataclass(frozen=True, slots=True)
class End:
    """`reserved` is its number if it has a reserved identity. An end outside without labels is what its address is.

    `audit`: what its policies deny is recorded, and passes.
    """

    standing: Standing
    labels: LabelSet | None = None
    reserved: Reserved = Reserved.UNKNOWN
    address: IpAddress | None = None
    ports: frozenset[NamedPort] = frozenset()
    audit: bool = False


class Question(NamedTuple):
    """May `source` open a flow to this port of `destination`? For ICMP the port is the type."""

    source: str
    destination: str
    protocol: int
    port: int


@dataclass(frozen=True, slots=True)
class Settings:
    """Of the cluster that a case is judged as."""

    enforcement: Enforcement = Enforcement.DEFAULT
    allow_localhost: AllowLocalhost = AllowLocalhost.AUTO
    ipblock_matches_pods: bool = True
    cluster: str = "default"


@dataclass(frozen=True, slots=True)
class Case:
    ends: Mapping[str, End]
    rules: tuple[PolicyRule, ...]
    settings: Settings


class Word(Enum):
    """What one side says."""

    ALLOW = "allow"
    DENY = "deny"
    REDIRECT = "redirect"  # allowed as far as addresses and ports go: a proxy decides


class Side(NamedTuple):
    """`cookie` is of the entry that decided, 0 if none did. `audited`: it denies, but is in audit mode and allows."""

    word: Word
    cookie: int = 0
    audited: bool = False


class Sides(NamedTuple):
    """None where that end is not policed here."""

    egress: Side | None
    ingress: Side | None

    @property
    def verdict(self) -> str:
        words = {side.word for side in self if side is not None}
        if Word.DENY in words:
            return "denied"
        return "redirected" if Word.REDIRECT in words else "allowed"
