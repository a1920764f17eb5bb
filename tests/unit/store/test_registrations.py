"""What nodes say of themselves, read by others."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from reconciler.model.origin import Origin
from reconciler.store.embedded import EmbeddedStore
from reconciler.store.node_cidrs import NodeCidrs
from reconciler.store.protocol import root
from reconciler.store.registrations import Registration, node_key, nodes_prefix, registrations

GOOD = Registration("beta", "1", (), (), "1.0", "2026-01-01", Origin("nodes/beta.yaml", 1, "Node", "beta", "c"))


@pytest.mark.parametrize("value", [b"rubbish", b"[]", b'{"origin": ["a", 1, "b"], "addresses": 5}', b"\xff"])
def test_a_node_that_cannot_be_read_hides_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, value: bytes
) -> None:
    store = EmbeddedStore(tmp_path / "store.sqlite")
    store.put(node_key("demo", "alpha"), value)
    store.put(node_key("demo", "beta"), GOOD.encoded())
    with caplog.at_level(logging.WARNING):
        assert registrations(store.range(nodes_prefix("demo")).items) == {"beta": GOOD}
    assert f"{node_key('demo', 'alpha')} in the store is not a node" in caplog.text
    store.close()


def test_a_claim_that_cannot_be_read_hides_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = EmbeddedStore(tmp_path / "store.sqlite")
    store.put(f"{root('demo')}node-cidrs/nodes/alpha", b"rubbish")
    store.put(f"{root('demo')}node-cidrs/nodes/beta", b'["10.0.0.0/24"]')
    with caplog.at_level(logging.WARNING):
        assert list(NodeCidrs(store, (), "demo").held()) == ["beta"]
    assert "nodes/alpha in the store is not a list of CIDRs" in caplog.text
    store.close()
