"""Columns, plans and counts as people read them."""

from __future__ import annotations

import pytest

from reconciler.cli.output import counts_text, show_fields, show_plan, show_rows


def test_rows_are_aligned_under_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([{"name": "web", "addresses": ["10.0.0.1", "fd00::1"]}, {"name": "b", "addresses": []}], empty="none")
    assert capsys.readouterr().out == "NAME  ADDRESSES\nweb   10.0.0.1, fd00::1\nb     -\n"


def test_no_rows_are_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([], empty="there are none")
    assert capsys.readouterr().out == "there are none\n"


def test_a_long_cell_is_cut_but_for_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([{"a": "x" * 100, "b": "y" * 100}], empty="")
    assert capsys.readouterr().out.splitlines()[1] == "x" * 59 + "…  " + "y" * 100


def test_fields_show_what_is_nested(capsys: pytest.CaptureFixture[str]) -> None:
    show_fields([("daemon", {"pid": 7, "up": True}), ("error", None)])
    assert capsys.readouterr().out == "daemon  pid=7 up=yes\nerror   -\n"


def test_a_plan_has_no_colour_where_nobody_sees_it(capsys: pytest.CaptureFixture[str]) -> None:
    show_plan("routes: +1 ~0 -0\n  + 10.0.0.0/8")
    assert capsys.readouterr().out == "routes: +1 ~0 -0\n  + 10.0.0.0/8\n"


@pytest.mark.parametrize("counts", [{"added": 3, "changed": 1, "removed": 0}, [3, 1, 0], "+3 ~1 -0"])
def test_counts_are_read_in_each_of_their_forms(counts: object) -> None:
    assert counts_text({"policy": counts}) == "policy +3 ~1 -0"
