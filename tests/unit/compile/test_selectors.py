"""The label index answers as selectors do, whatever came and went before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconciler.compile.selectors import IPBLOCK_SOURCE, LabelIndex, bitmap, positions
from reconciler.model.labels import Label, LabelSet
from reconciler.model.selector import Operator, Requirement, Selector

sources, keys, values = st.sampled_from(("k8s", "container")), st.sampled_from("xyz"), st.sampled_from("12")
label_sets = st.frozensets(st.builds(Label, sources, keys, values), max_size=4)
worlds = st.dictionaries(st.integers(1, 40), label_sets, max_size=12)
requirements = st.builds(
    Requirement, st.sampled_from(("any", "k8s", "other")), keys, st.sampled_from(Operator), st.frozensets(values)
)
selectors = st.lists(requirements, max_size=3).map(lambda found: Selector(tuple(found)))


@given(st.lists(worlds, min_size=1, max_size=4), st.lists(selectors, max_size=4))
def test_the_index_selects_what_the_selector_matches(history: list[dict[int, LabelSet]], asked: list[Selector]) -> None:
    index = LabelIndex()
    for world in history:
        index.update(world)
        for selector in asked:
            found = set(index.numbers(index.select(selector)).tolist())
            assert found == {number for number, labels in world.items() if selector.matches(labels)}


@given(st.sets(st.integers(0, 3000), max_size=200))
def test_a_bitmap_holds_its_positions(found: set[int]) -> None:
    assert positions(bitmap(found)).tolist() == sorted(found)


def test_a_number_that_returns_with_other_labels_gets_another_bit() -> None:
    index = LabelIndex({300: frozenset({Label("k8s", "x", "1")})})
    before = index.bit(300)
    index.update({300: frozenset({Label("k8s", "x", "2")})})
    assert index.bit(300) & before == 0


def test_many_dead_positions_start_a_new_epoch() -> None:
    index = LabelIndex()
    for turn in range(4):
        index.update({number: frozenset({Label("k8s", "x", str(turn))}) for number in range(1, 600)})
    assert index.epoch == 1
    assert len(index.numbers(index.everyone)) == 599


def test_selectors_without_a_source_do_not_see_ipblocks() -> None:
    index = LabelIndex({300: frozenset({Label(IPBLOCK_SOURCE, "10.0.0.0/8")})})
    assert index.select(Selector((Requirement("any", "10.0.0.0/8", Operator.EXISTS),))) == 0
    assert index.carrying(Label(IPBLOCK_SOURCE, "10.0.0.0/8")) == index.bit(300)
