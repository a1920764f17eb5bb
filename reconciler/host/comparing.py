"""Tables are compared one after the other, and between two of them rows that somebody touched may be put right."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from reconciler.engine.change import Delta

Between = Callable[[], Collection[str]]  # -> the tables in which rows were put right


def compared(names: Iterable[str], compare: Callable[[str], Delta | None], between: Between) -> tuple[Delta, ...]:
    """What differs, in the order of the names. Where rows were put right after they differed, that table once more."""
    found: dict[str, Delta | None] = {}
    for name in names:
        found[name] = compare(name)
        found |= {one: compare(one) for one in between() if found.get(one)}
    return tuple(delta for delta in found.values() if delta)
