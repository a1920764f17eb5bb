"""The journal: recovery, history, and files that a crash cut short."""

from __future__ import annotations

import json
import logging
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.engine.apply import apply
from reconciler.engine.journal import Journal
from reconciler.engine.record import Result
from reconciler.errors import ApplyError

from .fake import FakeHost, State, tables_of
from .states import host_with, journal_in, plan_between

BEFORE: State = {"routes": {1: 1, 2: 2}, "policy": {1: 1}, "addresses": {1: 1}, "ipcache": {1: 1}, "frontends": {}}
AFTER: State = {"routes": {2: 3, 3: 3}, "policy": {2: 2}, "addresses": {}, "ipcache": {2: 2}, "frontends": {1: 1}}


def interrupted(directory: Path) -> FakeHost:
    """A host whose transaction was written and never committed."""
    journal_in(directory).open(plan_between(BEFORE, AFTER))
    return host_with(AFTER)


def entry_in(directory: Path) -> Path:
    return directory / "journal" / "open.json"


def apply_some(journal: Journal, count: int) -> None:
    for number in range(count):
        before: State = {"routes": {1: number}}
        plan = plan_between(before, {"routes": {1: number + 1}})
        apply(plan, tables_of(host_with(before)), journal, lock=nullcontext())


def test_an_open_entry_is_undone(tmp_path: Path) -> None:
    host = interrupted(tmp_path)
    record = journal_in(tmp_path).recover(tables_of(host))
    assert host.rows == BEFORE
    assert record is not None
    assert (record.result, record.reason) == (Result.ROLLED_BACK, "interrupted")
    assert journal_in(tmp_path).history() == [record]


def test_rows_that_changed_since_are_set_to_what_they_were_before(tmp_path: Path) -> None:
    host = interrupted(tmp_path)
    host.rows["routes"] = {2: 9}
    host.rows["policy"] = {7: 7}
    journal_in(tmp_path).recover(tables_of(host))
    assert host.rows == {**BEFORE, "policy": {1: 1, 7: 7}}


def test_without_an_open_entry_there_is_nothing_to_undo(tmp_path: Path) -> None:
    host = host_with(AFTER)
    assert journal_in(tmp_path).recover(tables_of(host)) is None
    assert host.steps == 0


def test_a_row_whose_device_is_gone_is_named_and_the_rest_restored(tmp_path: Path) -> None:
    host = replace(interrupted(tmp_path), missing=frozenset({("routes", 1)}))
    record = journal_in(tmp_path).recover(tables_of(host))
    assert host.rows == {**BEFORE, "routes": {2: 2}}
    assert record is not None
    assert record.reason == "interrupted; 1 not restored: routes: routes: update 1: ENODEV"
    assert not journal_in(tmp_path).unfinished


def test_a_generation_is_restored_whole_or_not_at_all(tmp_path: Path) -> None:
    host = replace(interrupted(tmp_path), missing=frozenset({("policy", 1)}))
    journal_in(tmp_path).recover(tables_of(host))
    assert (host.rows["policy"], host.rows["frontends"]) == (AFTER["policy"], AFTER["frontends"])
    assert host.rows["routes"] == BEFORE["routes"]


def test_a_table_that_is_gone_is_named_and_the_rest_restored(tmp_path: Path) -> None:
    host = interrupted(tmp_path)
    tables = {name: table for name, table in tables_of(host).items() if name != "ipcache"}
    record = journal_in(tmp_path).recover(tables)
    assert host.rows == {**BEFORE, "ipcache": AFTER["ipcache"]}
    assert record is not None
    assert "1 not restored: the plan is for a table that this host does not have: 'ipcache'" in record.reason


def test_an_entry_cut_short_anywhere_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    interrupted(tmp_path)
    whole = entry_in(tmp_path).read_bytes()
    for length in range(len(whole)):
        entry_in(tmp_path).write_bytes(whole[:length])
        host = host_with(BEFORE)
        assert journal_in(tmp_path).recover(tables_of(host)) is None
        assert host.steps == 0
        assert not journal_in(tmp_path).unfinished
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_an_entry_with_a_flipped_bit_is_set_aside(tmp_path: Path) -> None:
    interrupted(tmp_path)
    content = bytearray(entry_in(tmp_path).read_bytes())
    content[-20] ^= 1
    entry_in(tmp_path).write_bytes(content)
    assert journal_in(tmp_path).recover(tables_of(host_with(AFTER))) is None


def test_an_entry_of_a_newer_version_is_a_clear_error_and_stays(tmp_path: Path) -> None:
    interrupted(tmp_path)
    entry_in(tmp_path).write_text(json.dumps({"format": 2}) + "\nsomething new")
    with pytest.raises(ApplyError, match="format 2, this version reads format 1"):
        journal_in(tmp_path).recover(tables_of(host_with(AFTER)))
    assert journal_in(tmp_path).unfinished


def test_a_transaction_in_the_history_is_not_undone(tmp_path: Path) -> None:
    """The crash came between the record and the removal of the entry."""
    journal = journal_in(tmp_path)
    entry = journal.open(plan_between(BEFORE, AFTER))
    content = entry_in(tmp_path).read_bytes()
    journal.commit(entry)
    entry_in(tmp_path).write_bytes(content)
    host = host_with(AFTER)
    assert journal_in(tmp_path).recover(tables_of(host)) is None
    assert host.rows == AFTER
    assert not journal.unfinished


def test_a_journal_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("not a directory")
    host = host_with(BEFORE)
    with pytest.raises(ApplyError, match=r"the journal cannot be written.*nothing was changed"):
        apply(plan_between(BEFORE, AFTER), tables_of(host), journal_in(tmp_path), lock=nullcontext())
    assert host.rows == BEFORE


def test_a_history_that_cannot_be_written_takes_the_changes_back(tmp_path: Path) -> None:
    (tmp_path / "journal" / "history.jsonl").mkdir(parents=True)
    host = host_with(BEFORE)
    with pytest.raises(ApplyError, match="the journal cannot be written"):
        apply(plan_between(BEFORE, AFTER), tables_of(host), journal_in(tmp_path), lock=nullcontext())
    assert host.rows == BEFORE


def test_the_history_is_newest_first(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    apply_some(journal, 3)
    times = [record.time for record in journal.history()]
    assert len(times) == 3
    assert times == sorted(times, reverse=True)
    assert [record.time for record in journal.history(limit=1)] == times[:1]


def test_the_history_keeps_the_last_records_only(tmp_path: Path) -> None:
    journal = Journal(tmp_path, keep=3)
    apply_some(journal, 10)
    assert len(journal.history()) == 3
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) <= 6


def test_a_history_line_that_was_cut_short_costs_only_itself(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    apply_some(journal, 2)
    path = tmp_path / "history.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert len(journal.history()) == 1
    apply_some(journal, 1)
    assert len(journal.history()) == 2


def test_a_history_that_cannot_be_shortened_keeps_its_records(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "history.jsonl.new").mkdir()
    journal = Journal(tmp_path, keep=1)
    for _ in range(4):
        journal.commit(journal.open(plan_between(BEFORE, AFTER)))
    assert not journal.unfinished
    assert len((tmp_path / "history.jsonl").read_bytes().splitlines()) == 4
    assert "the history stays longer" in caplog.text
