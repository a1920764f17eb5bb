"""What nodes say of themselves, read by others."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.model.origin import Origin
from reconciler.store.embedded import EmbeddedStore
from reconciler.store.node_cidrs import NodeCidrs
from reconciler.store.protocol import Item, root
from reconciler.store.registrations import Registration, node_key, nodes_prefix, registration_of, registrations

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


def test_what_a_node_takes_is_read_as_it_says_it() -> None:
    told = replace(GOOD, direct_return="ipip")
    assert registration_of(Item(node_key("demo", "beta"), told.encoded(), 1)) == told


def test_a_node_of_an_earlier_version_takes_nothing() -> None:
    said = json.loads(GOOD.encoded())
    del said["direct_return"]
    assert registration_of(Item(node_key("demo", "beta"), json.dumps(said).encode(), 1)).direct_return == "none"


def test_a_node_of_a_later_version_may_say_more_and_take_what_nobody_knows() -> None:
    said = {**json.loads(GOOD.encoded()), "direct_return": "by pigeon", "more": [1]}
    found = registration_of(Item(node_key("demo", "beta"), json.dumps(said).encode(), 1))
    assert found == replace(GOOD, direct_return="by pigeon")


def test_a_claim_that_cannot_be_read_hides_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = EmbeddedStore(tmp_path / "store.sqlite")
    store.put(f"{root('demo')}node-cidrs/nodes/alpha", b"rubbish")
    store.put(f"{root('demo')}node-cidrs/nodes/beta", b'["10.0.0.0/24"]')
    with caplog.at_level(logging.WARNING):
        assert list(NodeCidrs(store, (), "demo").held()) == ["beta"]
    assert "nodes/alpha in the store is not a list of CIDRs" in caplog.text
    store.close()
