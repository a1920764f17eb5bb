"""Policy rows in their two forms: logical (model/datapath.py), and in the layout of an LPM trie (bpf/lib/policy.h).

The trie compares the first `prefixlen` bits behind that field: peer, direction, protocol, port, in this order. A row
that we would never write (a prefix that ends elsewhere) shows its prefix length in `pad`, so that it equals no row that
anybody wants.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconciler.bpf.maps import Records
from reconciler.engine.rows import Columns
from reconciler.model.datapath import POLICY_KEY, POLICY_VALUE

_PEER_ONLY = 32 + 8  # bits of peer and direction
_PROTOCOL = _PEER_ONLY + 8
_FULL = _PROTOCOL + 16

Dtype = np.dtype[Any]


def to_trie(rows: Columns, key_dtype: Dtype, value_dtype: Dtype) -> tuple[Records, Records]:
    """Keys and values of the tries that hold these rows, in the same order; the subject is not in them."""
    keys, values = np.zeros(len(rows), key_dtype), np.zeros(len(rows), value_dtype)
    protocol, bits, odd = rows.keys["protocol"], rows.keys["port_bits"], rows.keys["pad"]
    usual = np.where(protocol > 0, _PROTOCOL + bits, _PEER_ONLY)
    keys["prefixlen"] = np.where(odd > 0, odd, usual)
    keys["peer"], keys["egress"], keys["protocol"] = rows.keys["peer"], rows.keys["egress"], protocol
    keys["dport"] = _big_endian(rows.keys["port"])
    for field in ("verdict", "flags", "cookie"):
        values[field] = rows.values[field]
    values["proxy_port"] = _big_endian(rows.values["proxy_port"])
    return keys, values


def from_trie(subjects: NDArray[np.uint32], keys: Records, values: Records) -> Columns:
    """The rows of tries; `subjects[i]` is whose row i is."""
    logical, says = np.zeros(len(keys), POLICY_KEY), np.zeros(len(keys), POLICY_VALUE)
    length = keys["prefixlen"]
    protocol = np.where(length >= _PROTOCOL, keys["protocol"], 0)
    bits = np.clip(length.astype(np.int64) - _PROTOCOL, 0, 16)
    usual = np.where(protocol > 0, (length >= _PROTOCOL) & (length <= _FULL), length == _PEER_ONLY)
    logical["subject"], logical["peer"], logical["egress"] = subjects, keys["peer"], keys["egress"]
    logical["protocol"], logical["port_bits"] = protocol, bits
    logical["port"] = _big_endian(keys["dport"]) & (0xFFFF0000 >> bits & 0xFFFF)
    logical["pad"] = np.where(usual, 0, length)
    for field in ("verdict", "flags", "cookie"):
        says[field] = values[field]
    says["proxy_port"] = _big_endian(values["proxy_port"])
    return Columns(logical, says)


def _big_endian(column: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Between host and network order, either way."""
    return column.astype(">u2").view(np.uint16)
