"""Manifests on disk: what was kept comes back, and nothing else does."""

from __future__ import annotations

import pickle
import sqlite3
from pathlib import Path

import pytest

from reconciler import shipped
from reconciler.source import archive, manifests
from reconciler.source.archive import Archive
from reconciler.source.loading import Cache, load_directory
from reconciler.source.manifests import Manifest

TEXT = b"apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: web}\n"
POLICY = manifests.read(
    TEXT + b"spec: {endpointSelector: {}, ingress: [{fromCIDR: [10.0.0.0/8, '::1']}, {fromEntities: [cluster]}]}\n"
)
FAULTY = manifests.read(TEXT)


@pytest.fixture
def kept(tmp_path: Path) -> Archive:
    made = Archive(tmp_path / "archive")
    made.put({"a": POLICY, "b": FAULTY})
    return made


def change(where: Path, statement: str, *values: object) -> None:
    database = sqlite3.connect(where / "archive" / "manifests.sqlite")
    with database:
        database.execute(statement, values)
    database.close()


def test_what_was_kept_comes_back_to_another_process(kept: Archive, tmp_path: Path) -> None:
    assert Archive(tmp_path / "archive").get(["a", "b", "c"]) == {"a": POLICY, "b": FAULTY}


def test_a_directory_is_loaded_the_same_from_disk(tmp_path: Path) -> None:
    first = load_directory(shipped.quickstart(), Cache(tmp_path / "archive"))
    again = Cache(tmp_path / "archive")
    assert load_directory(shipped.quickstart(), again) == first


def test_a_second_cache_reads_no_file(tmp_path: Path) -> None:
    load_directory(shipped.quickstart(), Cache(tmp_path / "archive"))
    again = Cache(tmp_path / "archive")
    load_directory(shipped.quickstart(), again)
    assert again.files_read == 0


def test_a_value_that_was_changed_is_ignored(kept: Archive, tmp_path: Path) -> None:
    value = pickle.dumps(POLICY).replace(b"web", b"wbe")
    change(tmp_path, "UPDATE manifest SET value = ? WHERE key = 'a'", value)
    assert list(kept.get(["a", "b"])) == ["b"]


def test_a_value_under_another_key_is_ignored(kept: Archive, tmp_path: Path) -> None:
    change(tmp_path, "UPDATE manifest SET key = 'c' WHERE key = 'a'")
    assert kept.get(["c"]) == {}


def test_what_other_code_wrote_is_ignored(kept: Archive, tmp_path: Path) -> None:
    change(tmp_path, "UPDATE manifest SET code = 'older'")
    assert kept.get(["a"]) == {}
    kept.put({"c": FAULTY})
    assert list(kept.get(["a", "b", "c"])) == ["c"]


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (eval, ("1/0",))


@pytest.mark.parametrize("value", [pickle.dumps(Harmful()), pickle.dumps("text"), b"", b"garbage"])
def test_nothing_but_a_manifest_is_ever_made(kept: Archive, tmp_path: Path, value: bytes) -> None:
    change(tmp_path, "UPDATE manifest SET value = ?, digest = ? WHERE key = 'a'", value, archive._digest("a", value))
    assert kept.get(["a"]) == {}


def test_a_file_that_is_no_database_is_thrown_away(kept: Archive, tmp_path: Path) -> None:
    (tmp_path / "archive" / "manifests.sqlite").write_bytes(b"garbage" * 1000)
    assert kept.get(["a"]) == {}
    kept.put({"a": POLICY})
    assert kept.get(["a"]) == {"a": POLICY}


def test_a_torn_file_is_thrown_away(kept: Archive, tmp_path: Path) -> None:
    file = tmp_path / "archive" / "manifests.sqlite"
    data = file.read_bytes()
    file.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    assert kept.get(["a"]) == {}
    kept.put({"a": POLICY})
    assert kept.get(["a"]) == {"a": POLICY}


def test_a_directory_that_others_may_write_to_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    open_archive = Archive(tmp_path / "open")
    open_archive.put({"a": POLICY})
    assert open_archive.get(["a"]) == {}
    assert list((tmp_path / "open").iterdir()) == []


def test_a_directory_that_cannot_be_made_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert Archive(tmp_path / "file" / "archive").get(["a"]) == {}


def test_the_oldest_are_dropped_above_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Archive(tmp_path / "archive")
    made.put({"old": FAULTY})
    change(tmp_path, "UPDATE manifest SET used = 1")
    monkeypatch.setattr(archive, "MAX_ENTRIES", 2)
    made.put({"a": Manifest(), "b": Manifest()})
    assert sorted(made.get(["old", "a", "b"])) == ["a", "b"]


def test_use_keeps_an_entry_young(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Archive(tmp_path / "archive")
    made.put({"old": FAULTY, "unused": FAULTY})
    change(tmp_path, "UPDATE manifest SET used = 1")
    made.get(["old"])
    monkeypatch.setattr(archive, "MAX_ENTRIES", 2)
    made.put({"a": Manifest()})
    assert sorted(made.get(["old", "unused", "a"])) == ["a", "old"]
