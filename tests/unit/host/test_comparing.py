"""Between two tables rows may be put right, and what was found before that is looked at once more."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.engine.change import Delta, DictDelta
from reconciler.host.comparing import compared


def differing(name: str) -> Delta:
    return DictDelta(name, {}, {"key": "row"})


def never() -> frozenset[str]:
    return frozenset()


def test_what_differs_comes_in_the_order_of_the_tables() -> None:
    found = compared(("links", "routes"), differing, never)
    assert [delta.table for delta in found] == ["links", "routes"]


def test_tables_without_a_difference_are_left_out() -> None:
    assert compared(("links", "routes"), lambda name: None, never) == ()


def test_a_table_that_differed_and_was_put_right_is_compared_again() -> None:
    answers: dict[str, Iterator[Delta | None]] = {
        "links": iter([differing("links"), None]),
        "routes": iter([differing("routes")]),
    }
    mended = iter([frozenset[str](), frozenset(("links",))])
    found = compared(answers, lambda name: next(answers[name]), lambda: next(mended))
    assert [delta.table for delta in found] == ["routes"]


def test_a_table_that_did_not_differ_is_compared_once() -> None:
    names: list[str] = []
    compared(("links", "routes"), names.append, lambda: {"links"})
    assert names == ["links", "routes"]
