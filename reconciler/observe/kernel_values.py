"""Words of a kernel filter as the values that their fields can have: numbers, spans, networks, names, text."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from reconciler.observe.kernel_events import Field, Kind

TEXT_BYTES = 15  # IFNAMSIZ - 1


@dataclass(frozen=True, slots=True)
class Span:
    """Numbers from `first` to `last`, both included."""

    first: int
    last: int


Value = Span | IPv4Network | IPv6Network | bytes


def read(field: Field, text: str) -> Value:
    """What the word means for this field. Raises ValueError with what is wrong."""
    match field.kind:
        case Kind.ADDRESS:
            return _network(text)
        case Kind.TEXT:
            raw = _encoded(text)
            if len(raw) > TEXT_BYTES:
                raise ValueError(f"`{text}` is longer than {TEXT_BYTES} bytes")
            return raw
        case Kind.NAME if text.upper() in field.names:
            number = field.names[text.upper()]
            return Span(number, number)
        case Kind.NAME:
            if not text.isdecimal():
                near = difflib.get_close_matches(text.upper(), field.names, 1)
                raise ValueError(f"`{text}` is unknown" + (f"; did you mean {near[0]}?" if near else ""))
    first, dash, last = text.partition("-")
    span = Span(_number(first, field), _number(last if dash else first, field))
    if span.first > span.last:
        raise ValueError(f"the range `{text}` is empty")
    return span


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError("the word is not valid UTF-8") from None


def _number(text: str, field: Field) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 10:
        raise ValueError(f"`{text}` is no number")
    if int(text) > field.largest:
        raise ValueError(f"{text} is above {field.largest}")
    return int(text)


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        if "host bits" in str(error):
            raise ValueError(f"`{text}` has bits beyond its prefix; {ip_network(text, strict=False)}?") from None
        raise ValueError(f"`{text}` is no address") from None


def is_single(value: Value) -> bool:
    """Whether `==` may stand before it."""
    match value:
        case Span():
            return value.first == value.last
        case IPv4Network() | IPv6Network():
            return value.prefixlen == value.max_prefixlen
        case _:
            return True


def allowed(field: Field) -> str:
    """For an error: what may be written."""
    if not field.names:
        return field.kind.value
    names = ", ".join(list(field.names)[:20])
    return f"{field.kind.value}: {names}" + (", ..." if len(field.names) > 20 else "")
