"""etcd's keys, rows and changes as the store's protocol has them. Octets that are no UTF-8 survive both ways."""

from __future__ import annotations

from typing import Any

from reconciler.store.etcd_client import etcdrpc
from reconciler.store.protocol import Event, Item

DELETED = 1  # mvccpb.Event.EventType.DELETE


def encoded(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def decoded(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")


def prefix_range(prefix: str) -> tuple[bytes, bytes]:
    """The first key of a range and the key after its last (etcd clientv3/op.go, getPrefix)."""
    start = encoded(prefix)
    stem = start.rstrip(b"\xff")
    return start or b"\0", stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"


def item(row: Any) -> Item:
    return Item(decoded(row.key), row.value, row.mod_revision)


def event(change: Any) -> Event:
    """A deletion carries its own revision in the row."""
    gone = change.type == DELETED
    return Event(decoded(change.kv.key), None if gone else change.kv.value, change.kv.mod_revision)


def unchanged(key: str, revision: int) -> Any:
    """A condition: the key has this revision; etcd takes 0 for that of an absent one."""
    return etcdrpc.Compare(
        result=etcdrpc.Compare.EQUAL, target=etcdrpc.Compare.MOD, key=encoded(key), mod_revision=revision
    )


def written(key: str, value: bytes | None, lease: int | None) -> Any:
    """A write of a transaction; None deletes."""
    if value is None:
        return etcdrpc.RequestOp(request_delete_range=etcdrpc.DeleteRangeRequest(key=encoded(key)))
    return etcdrpc.RequestOp(request_put=etcdrpc.PutRequest(key=encoded(key), value=value, lease=lease or 0))
