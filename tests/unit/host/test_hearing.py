"""What is heard of a cluster through a mirror of its store."""

from __future__ import annotations

import time
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

import pytest

from reconciler.errors import StoreError
from reconciler.host.hearing import Hearing
from reconciler.store.announcements import Announcement, endpoint_key
from reconciler.store.embedded import EmbeddedStore
from reconciler.store.identities import identities_prefix
from reconciler.store.mirror import Mirror

DEADLINE_S = 10.0
NUMBER = 300


def test_what_could_not_be_read_is_not_taken_for_heard_the_next_time(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "store.sqlite")
    said = Announcement((ip_address("10.46.2.2"),), NUMBER, frozenset(), "web.yaml", 1, "c")
    store.put(endpoint_key("demo", "beta", "default/web"), said.encoded())
    store.put(f"{identities_prefix('demo')}0/numbers/{NUMBER}", b"garbage")
    with closing(Mirror(store, "demo", "alpha")) as mirror:
        hearing = Hearing(mirror, "demo", 0, node="alpha")
        mirror.follow(lambda keys: None)
        deadline = time.monotonic() + DEADLINE_S
        while not mirror.synchronised:
            assert time.monotonic() < deadline
        for _ in range(2):
            with pytest.raises(StoreError, match="is not an identity"):
                hearing.endpoints()
