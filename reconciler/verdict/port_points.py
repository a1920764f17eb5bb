"""Ports that stand for all: between two of them that are neighbours, no entry begins or ends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from reconciler.compile.host import Judging
from reconciler.compile.ports import ICMP, PORT_BITS
from reconciler.compile.stance import stance
from reconciler.model.policy import PROTOCOLS
from reconciler.model.policy_test import DestinationPort

_GRE = 47  # stands for what no entry can name
_LAST_PORT, _LAST_ICMP_TYPE = 65535, 255


def telling_ports(judging: Judging, sides: Iterable[tuple[int, str]]) -> list[DestinationPort]:
    """Of every protocol that entries of these sides (subject, direction) name; of each that none names, one.

    Which of them a flow can have depends on its family, so one for all that nothing names would not do.
    """
    begins: defaultdict[int, set[int]] = defaultdict(set)
    for number, direction in sides:
        subject = judging.subjects.get(number)
        entries = stance(subject, direction, judging.context).entries if subject is not None else ()
        for prefix in (prefix for entry in entries for prefix in entry.claim.ports):
            if prefix.protocol:
                begins[prefix.protocol] |= {prefix.port, prefix.port + (1 << PORT_BITS - prefix.bits)}
    unnamed = [DestinationPort(one, _lowest(one)) for one in (*PROTOCOLS.values(), _GRE) if one not in begins]
    named = [DestinationPort(protocol, port) for protocol in begins for port in _within(protocol, begins[protocol])]
    return [*unnamed, *named]


def _within(protocol: int, begins: set[int]) -> list[int]:
    last = _LAST_ICMP_TYPE if protocol in ICMP else _LAST_PORT
    return sorted({max(port, _lowest(protocol)) for port in begins if port <= last} | {_lowest(protocol)})


def _lowest(protocol: int) -> int:
    return 0 if protocol in ICMP else 1
