"""What lies below a prefix of the store and what changes there, through every loss of the store."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator

from reconciler.errors import ChangesMissed, StoreError
from reconciler.store.protocol import Store

log = logging.getLogger(__name__)

Values = dict[str, bytes | None]  # key -> value, None for a deleted key

POLL_S = 0.5
RETRY_S = 1.0


def changes(store: Store, prefix: str, poll_s: float = POLL_S, retry_s: float = RETRY_S) -> Generator[Values]:
    """First all that is there, then what changes, for ever; at least every `poll_s`, if need be with nothing.

    After a loss all that is there comes again; what was deleted meanwhile does not. Close it to end the watch.
    """
    lost = ""
    while True:
        try:
            for values in _until_lost(store, prefix, poll_s):
                lost = ""
                yield values
        except ChangesMissed:
            continue
        except StoreError as error:
            if not lost:
                log.info("not heard from the store prefix=%s error=%s", prefix, error)
            lost = str(error)
            yield {}
            time.sleep(retry_s)


def _until_lost(store: Store, prefix: str, poll_s: float) -> Generator[Values]:
    there = store.range(prefix)
    watch = store.watch(prefix, there.revision)
    try:
        yield {item.key: item.value for item in there.items}
        while True:
            yield {event.key: event.value for event in watch.poll(poll_s)}
    finally:
        watch.close()
