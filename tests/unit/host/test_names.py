"""Device names and addresses follow from names alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconciler.host.names import device_names, workload_mac

references = st.sets(st.from_regex(r"[a-z0-9-]{1,63}/[a-z0-9.-]{1,63}", fullmatch=True), max_size=50)


@given(references)
def test_names_are_unique_and_fit_the_kernel(names: set[str]) -> None:
    given_names = device_names(names)
    assert set(given_names) == names
    assert len(set(given_names.values())) == len(names)
    assert all(len(name.encode()) <= 15 for name in given_names.values())


@given(references)
def test_the_order_of_workloads_does_not_matter(names: set[str]) -> None:
    assert device_names(sorted(names)) == device_names(sorted(names, reverse=True))


def test_a_name_can_be_recognised() -> None:
    assert device_names(["default/web-frontend"])["default/web-frontend"].startswith("plwebfro-")


def test_an_address_is_local_unicast_and_differs_between_clusters() -> None:
    first, second = workload_mac("east", "default/web"), workload_mac("west", "default/web")
    assert first != second
    assert int(first[:2], 16) & 0b11 == 0b10
