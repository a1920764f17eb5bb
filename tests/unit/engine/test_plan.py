"""A plan as a value: its digest, its JSON, its text."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.engine.plan import Plan, diff
from reconciler.engine.rows import Columns, DictRows, Rows
from reconciler.errors import UsageError
from reconciler.model.origin import Origin

from .fake import FakeHost, Item, State, columns, dict_rows, live_of, tables_of
from .states import NEW, OLD, plan_between, states

ORIGINS = (
    Origin("policies/web.yaml", 14, "NetworkPolicy", "web", NEW),
    Origin("policies/db.yaml", 3, "NetworkPolicy", "db", NEW),
)
TABLES = tables_of(FakeHost())


def plan_of(desired: Rows, live: Rows, table: str) -> Plan:
    return diff(NEW, OLD, {table: desired}, {table: live}, complete=True)


def named_plan() -> Plan:
    """Rows of both shapes with origins: something added, changed and removed in each."""
    routes = DictRows({1: Item(1), 2: Item(2)}, {1: ORIGINS[0], 2: ORIGINS[1]})
    rows = columns({1: 1, 2: 2})
    policy = Columns(rows.keys, rows.values, ORIGINS, np.array([1, 0], np.int32))
    return diff(
        NEW,
        OLD,
        {"routes": routes, "policy": policy},
        {"routes": dict_rows({2: 3, 4: 4}), "policy": columns({2: 3, 4: 4})},
        complete=True,
    )


@settings(deadline=None)
@given(before=states, after=states)
def test_a_plan_survives_json_exactly(before: State, after: State) -> None:
    plan = plan_between(before, after)
    again = Plan.from_json(plan.to_json(), TABLES)
    assert again.digest == plan.digest
    assert again.to_document() == plan.to_document()


@pytest.mark.parametrize("plan", [named_plan(), named_plan().inverse()])
def test_origins_survive_json(plan: Plan) -> None:
    again = Plan.from_json(plan.to_json(), TABLES)
    assert [change.origin for change in again.changes()] == [change.origin for change in plan.changes()]


def test_many_columns_survive_json_in_packed_form() -> None:
    plan = plan_of(columns({key: key * 2 for key in range(10_000)}), columns({}), "policy")
    again = Plan.from_json(plan.to_json(), TABLES)
    assert again.digest == plan.digest
    assert len(plan.to_json()) < 250_000


@settings(deadline=None)
@given(before=states, after=states)
def test_the_digest_ignores_the_order_of_rows(before: State, after: State) -> None:
    turned = {name: dict(reversed(rows.items())) for name, rows in reversed(after.items())}
    assert plan_between(before, turned).digest == plan_between(before, after).digest


@settings(deadline=None)
@given(before=states, one=states, other=states)
def test_the_digest_tells_plans_apart(before: State, one: State, other: State) -> None:
    same = plan_between(before, one).digest == plan_between(before, other).digest
    assert same == (one == other)


def test_the_digest_covers_the_commit() -> None:
    plan = named_plan()
    assert Plan("c" * 40, plan.base, plan.deltas).digest != plan.digest


@settings(deadline=None)
@given(at=st.integers(0, len(named_plan().to_json()) - 1), by=st.sampled_from('0179xe"[]{},: '))
def test_a_changed_character_is_refused_or_changes_nothing(at: int, by: str) -> None:
    text = named_plan().to_json()
    changed = text[:at] + by + text[at + 1 :]
    try:
        again = Plan.from_json(changed, TABLES)
    except UsageError:
        return
    assert again.to_document() == named_plan().to_document()


def test_a_row_that_is_written_under_another_key_than_it_was_read_is_refused() -> None:
    document = named_plan().to_document()
    document["tables"][1]["after"]["key"]["number"][0] += 5
    with pytest.raises(UsageError, match="digest"):
        Plan.from_json(json.dumps(document), TABLES)


@settings(deadline=None)
@given(length=st.integers(0, len(named_plan().to_json()) - 1))
def test_a_plan_that_was_cut_short_is_refused(length: int) -> None:
    with pytest.raises(UsageError):
        Plan.from_json(named_plan().to_json()[:length], TABLES)


def test_a_row_changed_by_hand_is_refused() -> None:
    document = named_plan().to_document()
    document["tables"][0]["rows"][0]["after"]["content"] = 99
    with pytest.raises(UsageError, match="changed after it was made"):
        Plan.from_json(json.dumps(document), TABLES)


def test_a_plan_of_another_format_is_refused() -> None:
    document = named_plan().to_document() | {"format": 2}
    with pytest.raises(UsageError, match="format 2"):
        Plan.from_json(json.dumps(document), TABLES)


def test_a_plan_for_a_table_that_the_host_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match="table that this host does not have: 'routes'"):
        Plan.from_json(named_plan().to_json(), {"policy": TABLES["policy"]})


def test_a_plan_for_another_layout_is_refused() -> None:
    tables = tables_of(FakeHost())
    tables["policy"].key_dtype = np.dtype([("number", "<u8")])  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="another layout"):
        Plan.from_json(named_plan().to_json(), tables)


def test_a_plan_reads_as_lines_for_tables() -> None:
    assert named_plan().render() == "routes: +1 ~1 -1\npolicy: +1 ~1 -1"


def test_rows_are_shown_on_request_with_their_origins() -> None:
    assert named_plan().render(rows=True).splitlines() == [
        "routes: +1 ~1 -1",
        f"  + 1   content=1   # policies/web.yaml:14 (NetworkPolicy web) @ {NEW[:12]}",
        "  - 4   content=4",
        f"  ~ 2   content=3 -> 2   # policies/db.yaml:3 (NetworkPolicy db) @ {NEW[:12]}",
        "policy: +1 ~1 -1",
        f"  + number=1 kind=7   content=1   # policies/db.yaml:3 (NetworkPolicy db) @ {NEW[:12]}",
        "  - number=4 kind=7   content=4",
        f"  ~ number=2 kind=7   content=3 -> 2   # policies/web.yaml:14 (NetworkPolicy web) @ {NEW[:12]}",
    ]


def test_rows_may_be_coloured() -> None:
    plan = plan_of(dict_rows({1: 1}), dict_rows({}), "routes")
    assert plan.render(rows=True, color=True) == "routes: +1 ~0 -0\n\x1b[32m  + 1   content=1\x1b[0m"


def test_whoever_shows_a_plan_may_say_how_its_fields_read() -> None:
    plan = plan_of(dict_rows({1: 1}), dict_rows({}), "routes")
    assert plan.render(rows=True, fields=lambda table, value: {"": f"{table}!"}).endswith("+ routes!   routes!")


def test_a_plan_without_changes_is_false_and_empty() -> None:
    plan = diff(NEW, OLD, live_of(TABLES), live_of(TABLES), complete=True)
    assert not plan
    assert plan.render(rows=True) == ""


@dataclass(frozen=True, slots=True)
class Nothing:
    """A row that says nothing beyond its key."""


def test_a_row_without_fields_is_shown_by_its_key() -> None:
    plan = plan_of(DictRows({"10.0.0.1": Nothing()}), DictRows({}), "addresses")
    assert plan.render(rows=True).splitlines()[1] == "  + 10.0.0.1"
