"""What people told the host to keep from doing outlives everything but themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.host.hold import Hold, HoldFile


def test_what_is_held_is_there_for_the_next_process(tmp_path: Path) -> None:
    hold = Hold(suspended="maintenance", held="a" * 40)
    HoldFile(tmp_path / "state").write(hold)
    assert HoldFile(tmp_path / "state").read() == hold


def test_what_is_released_leaves_no_file(tmp_path: Path) -> None:
    holds = HoldFile(tmp_path)
    holds.write(Hold(held="a" * 40))
    holds.write(Hold())
    assert holds.read() == Hold()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"suspended": "x"}'])
def test_a_file_that_cannot_be_understood_suspends_the_host(tmp_path: Path, content: str) -> None:
    (tmp_path / "hold.json").write_text(content)
    assert "hold.json cannot be understood" in HoldFile(tmp_path).read().suspended
