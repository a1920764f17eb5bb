"""Memory after a commit."""

from __future__ import annotations

import gc

from reconciler.daemon.memory import settle_memory


def test_what_is_alive_is_exempt_from_collection_and_what_is_not_is_collected() -> None:
    circle: list[object] = []
    circle.append(circle)
    del circle
    settle_memory()
    try:
        assert gc.get_freeze_count() > 0
        assert gc.collect() == 0
    finally:
        gc.unfreeze()
