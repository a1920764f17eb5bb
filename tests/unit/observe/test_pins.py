"""Watching directories for pins that appear and vanish."""

import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.errors import KernelError
from reconciler.observe.pins import PinEvent, PinWatch, What


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[PinWatch]:
    watching = PinWatch([tmp_path])
    yield watching
    watching.close()


def test_creating_moving_and_deleting_are_told_in_order(watch: PinWatch, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "b").unlink()
    assert watch.read() == [
        PinEvent(tmp_path, "a", What.CREATED),
        PinEvent(tmp_path, "a", What.MOVED),
        PinEvent(tmp_path, "b", What.CREATED),
        PinEvent(tmp_path, "b", What.DELETED),
    ]


def test_reading_without_news_does_not_wait(watch: PinWatch) -> None:
    assert watch.read() == []


def test_its_descriptor_is_readable_when_there_is_news(watch: PinWatch, tmp_path: Path) -> None:
    assert not select.select([watch], [], [], 0)[0]
    (tmp_path / "a").touch()
    assert select.select([watch], [], [], 5)[0]


def test_the_directory_itself_going_away_is_told(watch: PinWatch, tmp_path: Path) -> None:
    tmp_path.rmdir()
    assert watch.read() == [PinEvent(tmp_path, "", What.DELETED)]


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match=r"cannot watch .*No such file"):
        PinWatch([tmp_path / "gone"])
