"""Names that are offered in place of one that nobody knows."""

from __future__ import annotations

from reconciler.source.phrases import nearest


def test_the_nearest_name_is_offered() -> None:
    assert nearest("Clutser", ["Cluster", "Node"]) == 'did you mean "Cluster"?'


def test_where_none_is_near_a_few_are_named_and_the_others_counted() -> None:
    names = [f"workload-{number}" for number in range(1000)]
    assert nearest("x", names[:2]) == "known here: workload-0, workload-1"
    said = nearest("x", names)
    assert said.endswith("workload-9 and 990 more")
    assert len(said) < 200
