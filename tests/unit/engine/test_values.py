"""Every key and row type of the model survives JSON."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest
from cattrs.errors import ClassValidationError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.engine.values import compact, from_plain, to_plain
from reconciler.model.datapath import AttachmentKey, AttachmentRow, EndpointKey, EndpointRow, ProgramRow
from reconciler.model.labels import Label, LabelSet
from reconciler.model.network import (
    Address,
    AddressKey,
    Link,
    Neighbour,
    NeighbourKey,
    Route,
    RouteKey,
    Rule,
    RuleKey,
    Sysctl,
    SysctlKey,
)
from reconciler.model.selector import Requirement

MODEL = [
    EndpointKey,
    EndpointRow,
    ProgramRow,
    AttachmentKey,
    AttachmentRow,
    Link,
    AddressKey,
    Address,
    RouteKey,
    Route,
    RuleKey,
    Rule,
    NeighbourKey,
    Neighbour,
    SysctlKey,
    Sysctl,
    LabelSet,
    Requirement,
    str,
    int,
]


@pytest.mark.parametrize("kind", MODEL, ids=str)
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_value_survives_json(kind: Any, data: st.DataObject) -> None:
    value = data.draw(st.from_type(kind))
    assert from_plain(json.loads(compact(to_plain(value))), kind) == value


def test_sets_have_one_text_whatever_their_order() -> None:
    labels = [Label("k8s", str(number)) for number in range(50)]
    assert compact(to_plain(frozenset(labels))) == compact(to_plain(frozenset(reversed(labels))))


def test_addresses_are_text() -> None:
    key = RouteKey("", IPv4Network("10.0.0.0/8"), 254, 0)
    assert to_plain(key) == {"netns": "", "destination": "10.0.0.0/8", "table": 254, "priority": 0}


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ClassValidationError):
        from_plain({"value": "1", "more": "2"}, Sysctl)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (IPv4Address | IPv6Address, "fd00::1", IPv6Address("fd00::1")),
        (IPv4Network | IPv6Network | None, None, None),
        (IPv4Network | IPv6Network | None, "fd00::/64", IPv6Network("fd00::/64")),
    ],
)
def test_an_address_of_either_family_finds_its_type(kind: Any, text: Any, value: Any) -> None:
    assert from_plain(text, kind) == value
