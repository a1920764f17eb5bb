"""Local workloads by address: rows with names of devices, kept as indices."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import numpy as np
import pytest

from reconciler.errors import KernelError
from reconciler.model.datapath import EndpointRow

from .harness import Harness

V4, V6 = IPv4Address("10.1.0.1"), IPv6Address("fd00:1::1")
ROW = EndpointRow("lxc1", "02:00:00:00:00:01")


def test_rows_of_both_families_are_read_as_they_were_written(datapath: Harness) -> None:
    datapath.endpoints.write({V4: ROW, V6: ROW}, ())
    assert datapath.endpoints.live().rows == {V4: ROW, V6: ROW}
    assert datapath.endpoints.live({V4, IPv4Address("10.9.9.9")}).rows == {V4: ROW}


def test_writing_is_idempotent_both_ways(datapath: Harness) -> None:
    for _ in range(2):
        datapath.endpoints.write({V4: ROW}, ())
    for _ in range(2):
        datapath.endpoints.write({}, [V4, V6])
    assert datapath.endpoints.live().rows == {}


def test_a_device_that_is_not_there_is_an_error_and_nothing_is_written(datapath: Harness) -> None:
    with pytest.raises(KernelError, match="no device nowhere"):
        datapath.endpoints.write({V4: ROW, V6: EndpointRow("nowhere", ROW.mac)}, ())
    assert datapath.endpoints.live().rows == {}


def test_a_row_whose_device_is_gone_shows_its_index_and_can_be_written_back(datapath: Harness) -> None:
    orphan = EndpointRow("#99999", ROW.mac)
    datapath.endpoints.write({V4: orphan}, ())
    assert datapath.endpoints.live().rows == {V4: orphan}


def test_a_changed_byte_shows(datapath: Harness) -> None:
    datapath.endpoints.write({V4: ROW}, ())
    map_ = datapath.maps.open("endpoints4")
    keys, values = map_.read()
    values["mac"][0, 5] = 0xFF
    map_.update(keys, np.ascontiguousarray(values))
    assert datapath.endpoints.live().rows == {V4: EndpointRow("lxc1", "02:00:00:00:00:ff")}
