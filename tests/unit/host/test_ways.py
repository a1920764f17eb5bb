"""What a host says it takes of what others bring to its backends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.host.ways import way_taken
from reconciler.model.cluster import GENEVE_OF_ONE_VERSION, DirectReturn, Network, NetworkMode, Services
from tests.unit.compile.service_worlds import SERVING

CASES = [(way, mode) for way in DirectReturn for mode in NetworkMode]


@pytest.mark.parametrize(("way", "mode"), CASES)
@pytest.mark.parametrize("crosses", [True, False])
def test_it_is_the_commits_unless_the_kernel_takes_only_a_part(
    way: DirectReturn, mode: NetworkMode, crosses: bool
) -> None:
    cluster = replace(SERVING, services=Services(direct_return=way), network=Network(mode))
    part = way is DirectReturn.GENEVE and cluster.network.is_overlay and not crosses
    assert way_taken(cluster, crosses=crosses) == (GENEVE_OF_ONE_VERSION if part else way.value)


def test_no_way_of_a_commit_is_called_as_the_part_of_one() -> None:
    assert GENEVE_OF_ONE_VERSION not in {way.value for way in DirectReturn}
