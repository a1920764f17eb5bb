"""What notes say of reports."""

from __future__ import annotations

from reconciler.daemon.note_lines import merged
from reconciler.store.reports import Report


def ran(node: str, commit: str, since: str) -> Report:
    return Report(node, commit, "applied", since, running=commit, since=since)


def after(notes: dict[str, str], *reports: Report) -> dict[str, str]:
    return {**notes, **merged(notes, reports)}


def test_a_host_runs_a_commit_since_it_came_to_it() -> None:
    assert after({}, ran("beta", "c1", "10:00"), ran("alpha", "c1", "10:01")) == {
        "c1": "alpha: runs it since 10:01\nbeta: runs it since 10:00\n"
    }


def test_a_host_that_moves_on_ran_the_commit_before() -> None:
    notes = after({}, ran("alpha", "c1", "10:00"))
    assert after(notes, ran("alpha", "c2", "11:00")) == {
        "c1": "alpha: ran it from 10:00 until 11:00\n",
        "c2": "alpha: runs it since 11:00\n",
    }


def test_a_host_that_goes_back_runs_the_earlier_one_again() -> None:
    notes = after({}, ran("alpha", "c1", "10:00"))
    notes = after(notes, ran("alpha", "c2", "11:00"))
    held = Report("alpha", "c2", "held", "12:00", running="c1", since="12:00", error="rolled back")
    assert after(notes, held) == {
        "c1": "alpha: runs it since 12:00\n",
        "c2": "alpha: held at 12:00: rolled back\n",
    }


def test_what_could_not_be_applied_says_why_on_one_line() -> None:
    failed = Report("alpha", "c2", "refused", "11:00", running="c1", since="10:00", error="bad\n  row")
    assert merged({}, [failed])["c2"] == "alpha: refused at 11:00: bad row\n"


def test_the_same_report_changes_nothing_the_second_time() -> None:
    notes = after({}, ran("alpha", "c1", "10:00"))
    assert merged(notes, [ran("alpha", "c1", "10:00")]) == {}


def test_foreign_lines_stay() -> None:
    assert after({"c1": "reviewed by: me\n"}, ran("alpha", "c1", "10:00")) == {
        "c1": "reviewed by: me\nalpha: runs it since 10:00\n"
    }
