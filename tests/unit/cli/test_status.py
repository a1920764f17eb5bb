"""What `plumb status` says of a host besides its commit."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.cli.status import _fields
from reconciler.model.cluster import GENEVE_OF_ONE_VERSION, DirectReturn

BARE: dict[str, Any] = {"node": "alpha", "commit": "", "ref": "main", "repository": "/policies"}


@pytest.mark.parametrize("way", [GENEVE_OF_ONE_VERSION, *(one.value for one in DirectReturn), ""])
def test_a_way_that_the_kernel_takes_only_a_part_of_is_named(way: str) -> None:
    said = dict(_fields({**BARE, "direct_return": way}))
    assert ("kernel 6.3" in said.get("direct return", "")) is (way == GENEVE_OF_ONE_VERSION)
