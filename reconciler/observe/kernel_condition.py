"""A filter's tree as a condition in C, over the members of the record that the program fills in."""

from __future__ import annotations

import sys
from ipaddress import IPv4Network, IPv6Network

from reconciler.observe.kernel_expression import All, Any, Comparison, Node, Not
from reconciler.observe.kernel_values import Span, Value


def condition(node: Node) -> str:
    """A C expression over `r`, a pointer to the record; numbers only."""
    match node:
        case Not():
            return f"!({condition(node.node)})"
        case All():
            return " && ".join(f"({condition(each)})" for each in node.nodes)
        case Any():
            return " || ".join(f"({condition(each)})" for each in node.nodes)
        case Comparison():
            return _comparison(node)


def _comparison(comparison: Comparison) -> str:
    name, operator = comparison.field.name, comparison.operator
    if operator == "!=":
        return f"!({_is(name, comparison.values[0])})"
    if operator in ("==", "in"):
        return " || ".join(f"({_is(name, value)})" for value in comparison.values)
    value = comparison.values[0]
    assert isinstance(value, Span)  # the parser orders numbers only
    return f"r->{name} {operator} {value.first}U"


def _is(name: str, value: Value) -> str:
    match value:
        case Span(first, last) if first == last:
            return f"r->{name} == {first}U"
        case Span(first, last):
            return f"r->{name} >= {first}U && r->{name} <= {last}U"
        case IPv4Network() | IPv6Network():
            return _inside(name, value)
        case bytes():
            padded = value.ljust(16, b"\0")
            words = (word(padded[:8]), word(padded[8:]))
            return " && ".join(f"r->{name}[{place}] == {word}ULL" for place, word in enumerate(words))


def _inside(name: str, network: IPv4Network | IPv6Network) -> str:
    tests = [f"r->family == {network.version}"]
    mask, start = network.netmask.packed, network.network_address.packed
    for place in range(len(mask) // 4):
        bits = word(mask[place * 4 : place * 4 + 4])
        if bits:
            tests.append(f"(r->{name}[{place}] & {bits}U) == {word(start[place * 4 : place * 4 + 4])}U")
    return " && ".join(tests)


def word(raw: bytes) -> int:
    """The number that a host of this byte order reads from these bytes."""
    return int.from_bytes(raw, sys.byteorder)
