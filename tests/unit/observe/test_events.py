"""Decoding the datapath's records."""

import re
from ipaddress import IPv6Address
from pathlib import Path

import numpy as np
import pytest

from reconciler.errors import KernelError
from reconciler.observe.events import Decoder, shipped_layout
from reconciler.observe.flow import REASONS, EventType, FlowEvent, Reason, Side

from .flows import NOON_NS, STRANGER, WEB, record

HEADER = Path(__file__).parents[3] / "bpf" / "lib" / "events.h"


def decoded(*records: bytes) -> list[FlowEvent]:
    return Decoder(shipped_layout(), lambda: NOON_NS).decode(records)


def test_reasons_are_those_of_the_datapath() -> None:
    in_c = re.findall(r"^\tREASON_(\w+) = (\d+),", HEADER.read_text(), re.MULTILINE)
    assert {name: int(number) for name, number in in_c} == {reason.name: reason.value for reason in Reason}
    assert sorted(REASONS) == list(range(len(REASONS)))


def test_every_reason_has_a_name_and_a_sentence_for_people() -> None:
    assert all(reason.title and reason.sentence.endswith((".", "?")) for reason in Reason)


def test_a_record_becomes_an_event() -> None:
    (event,) = decoded(record(time_ns=5))
    assert event.time_ns == NOON_NS + 5
    assert (event.type, event.reason, event.side) == (EventType.DROP, Reason.POLICY_DEFAULT, Side.INGRESS)
    assert (event.source, event.source_port, event.source_identity) == (STRANGER, 40000, 1234)
    assert (event.destination, event.destination_port, event.destination_identity) == (WEB, 80, 5678)
    assert (event.cookie, event.generation, event.ifindex, event.length_bytes) == (77, 3, 9, 74)
    assert event.protocol_name == "tcp"
    assert event.tcp_flag_names == ["SYN"]
    assert event.icmp_type is None
    assert not event.reply


def test_ipv6_addresses_take_all_sixteen_bytes() -> None:
    source = IPv6Address("fd00:44::9")
    (event,) = decoded(record(family=6, source=source.packed))
    assert event.source == source


def test_icmp_has_a_type_and_an_identifier_instead_of_ports() -> None:
    (event,) = decoded(record(protocol=1, source_port=321, destination_port=8, icmp_code=4))
    assert (event.icmp_type, event.icmp_code, event.icmp_identifier) == (8, 4, 321)
    assert (event.source_port, event.destination_port) == (0, 0)


def test_records_keep_their_order() -> None:
    events = decoded(*(record(length=length) for length in range(100)))
    assert [event.length_bytes for event in events] == list(range(100))


def test_a_layout_without_a_field_is_refused_by_name() -> None:
    with pytest.raises(KernelError, match=r"lacks .*cookie"):
        Decoder(np.dtype([("time_ns", "u8")]))


def test_a_record_of_another_size_is_refused() -> None:
    with pytest.raises(KernelError, match="bytes long"):
        decoded(record()[:-1])


def test_a_reason_of_a_newer_datapath_is_refused() -> None:
    with pytest.raises(KernelError, match="reason 200"):
        decoded(record(reason=200))
