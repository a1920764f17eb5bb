"""Ports of entries as sets that can be compared; a named port stays a name, since its number is the destination's."""

from __future__ import annotations

from reconciler.compile.ports import ANY_PORT, PortPrefix, covering, prefixes
from reconciler.model.policy import PortMatch

Ports = tuple[PortMatch, ...] | None  # None: any port of any protocol
_Set = frozenset[PortPrefix | PortMatch]  # what has no name as prefixes
_EVERYTHING: _Set = frozenset((ANY_PORT,))


class PortSets:
    """Remembers what it was given, by identity as objects: whoever asks keeps them."""

    def __init__(self) -> None:
        self._sets: dict[int, _Set] = {}
        self._covers: dict[tuple[int, int], bool] = {}

    def cover(self, wide: Ports, narrow: Ports) -> bool:
        """Whether `narrow` has nothing that `wide` has not. A set that only several of `wide` cover together is not."""
        if wide is None or wide is narrow:
            return True
        key = (id(wide), id(narrow))
        if key not in self._covers:
            outer = self._of(wide)
            self._covers[key] = all(_is_inside(one, outer) for one in self._of(narrow))
        return self._covers[key]

    def meet(self, one: Ports, other: Ports) -> bool:
        """Whether any port may be in both; a name may be any number."""
        if one is None or other is None:
            return True
        mine, theirs = self._of(one), self._of(other)
        if any(_is_inside(port, theirs) for port in mine) or any(_is_inside(port, mine) for port in theirs):
            return True
        named = {port.protocol for port in (*one, *other) if port.name}
        return bool(named & {port.protocol for port in one} & {port.protocol for port in other})

    def _of(self, ports: Ports) -> _Set:
        if ports is None:
            return _EVERYTHING
        if id(ports) not in self._sets:
            found: set[PortPrefix | PortMatch] = set()
            for match in ports:
                found |= {match} if match.name else set(prefixes(match))
            self._sets[id(ports)] = frozenset(found)
        return self._sets[id(ports)]


def _is_inside(port: PortPrefix | PortMatch, ports: _Set) -> bool:
    if port in ports or ANY_PORT in ports:
        return True
    if isinstance(port, PortMatch):
        return PortPrefix(port.protocol, 0, 0) in ports
    return any(wider in ports for wider in covering(port))
