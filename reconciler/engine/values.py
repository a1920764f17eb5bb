"""Keys and rows as plain JSON values, and back by their types.

Addresses are text, enumerations their values, sets sorted lists, dataclasses objects.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from cattrs.preconf.json import make_converter

_PARSERS: dict[frozenset[Any], Callable[[Any], Any]] = {
    frozenset((IPv4Address, IPv6Address)): ip_address,
    frozenset((IPv4Network, IPv6Network)): ip_network,
    frozenset((IPv4Interface, IPv6Interface)): ip_interface,
}


def _sorted(items: Iterable[Any]) -> list[Any]:
    return sorted(items, key=compact)


def _family_union(kind: Any) -> frozenset[Any] | None:
    """The members of `IPv4X | IPv6X` or `IPv4X | IPv6X | None` without the None; None for any other type."""
    if get_origin(kind) not in (Union, UnionType):
        return None
    members = frozenset(get_args(kind)) - {NoneType}
    return members if members in _PARSERS else None


def _parse_address(text: Any, kind: Any) -> Any:
    members = _family_union(kind)
    if text is None and NoneType in get_args(kind):
        return None
    assert members is not None
    return _PARSERS[members](text)


_converter = make_converter(unstruct_collection_overrides={AbstractSet: _sorted}, forbid_extra_keys=True)
for _members in _PARSERS:
    for _member in _members:
        _converter.register_unstructure_hook(_member, str)
        _converter.register_structure_hook(_member, lambda text, kind: kind(text))
_converter.register_structure_hook_func(lambda kind: _family_union(kind) is not None, _parse_address)


def to_plain(value: Any) -> Any:
    return _converter.unstructure(value)


def from_plain(plain: Any, kind: Any) -> Any:
    """Raises an exception of any class when `plain` is no `kind`."""
    return _converter.structure(plain, kind)


def compact(plain: Any) -> str:
    """The one JSON text of a plain value: keys sorted, no spaces."""
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
