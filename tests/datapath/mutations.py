"""Damaged packets into a program: no crash, no verdict but those it may give, and a drop is counted once.

survive(datapath, [(frame, datapath_way), ...], {UNSPEC, SHOT})
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from ipaddress import ip_address

from reconciler.observe import counters
from reconciler.observe.flow import Reason

from .gate import error
from .harness import REDIRECT, SHOT, Harness, Ran
from .packets import ACK, FIN, RST, SCTP, SYN, TCP, UDP, echo, ip, sctp, segment, tcp, udp

Way = Callable[[bytes], Ran]
COUNT, SEED = 10_000, 20261130
GRE, IPV4, IPV6, ARP = 47, 0x0800, 0x86DD, 0x0806
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, OPTIONS = 0, 43, 44, 51, 60  # IPv6 extension headers
SHORTEST = {IPV4: 34, IPV6: 54}  # that a test run takes: with an IP header
HEADERS = 140  # bytes of a frame that are worth damaging
SEGMENT, LARGE = 1000, 3000  # bytes of data
NARROW = 1300  # MTU that routers tell of
PASSED = {Reason.ALLOWED, Reason.AUDITED}  # reasons for letting a packet pass
EDGES = (0, 1, 5, 6, 17, 43, 44, 51, 58, 60, 0x45, 0x46, 0x7F, 0x80, 0xFF)


def survive(datapath: Harness, tries: Sequence[tuple[bytes, Way]], allowed: Collection[int], drop: int = SHOT) -> None:
    """Tries 10,000 mutations of the frames, each the way that goes with it; all of `allowed` comes up.

    `drop`: the action that every frame is counted for.
    """
    dice, found = random.Random(SEED), set[int]()
    for _ in range(COUNT):
        frame, way = dice.choice(tries)
        mutant = mutated(frame, dice)
        datapath.gso_size = SEGMENT if len(mutant) > LARGE and dice.random() < 0.7 else 0
        before = dropped(datapath)
        ran = way(mutant)
        counted = [reason for reason, packets in dropped(datapath).items() for _ in range(packets - before[reason])]
        assert_counted(ran, counted, mutant, drop)
        found.add(ran.action)
    datapath.gso_size = 0
    assert found == set(allowed), found


def assert_counted(ran: Ran, counted: list[Reason], mutant: bytes, drop: int) -> None:
    """What cannot reach a backend is answered and counted; questions of neighbours end without."""
    if ran.action == drop and is_about_neighbours(mutant):
        assert len(counted) <= 1, (counted, mutant.hex())
    elif ran.action == drop:
        assert len(counted) == 1, (counted, mutant.hex())
    else:
        answered = ran.action == REDIRECT and counted in ([Reason.NO_BACKEND], [Reason.TOO_LARGE])
        assert not counted or answered, (ran, counted, mutant.hex())


def dropped(datapath: Harness) -> dict[Reason, int]:
    """Packets so far, by reason."""
    found = counters.read(datapath.maps.open("counters")).by_reason
    return {reason: count.packets for reason, count in found.items() if reason not in PASSED}


def is_about_neighbours(frame: bytes) -> bool:
    kind = int.from_bytes(frame[12:14])
    return kind == ARP or (kind == IPV6 and len(frame) > 54 and frame[20] == 58 and 133 <= frame[54] <= 137)


def mutated(frame: bytes, dice: random.Random) -> bytes:
    """Up to four bytes anew, and one in five cut short; one in twenty as it is."""
    mutant = bytearray(frame)
    for _ in range(dice.randint(1, 4) if dice.random() < 0.95 else 0):
        at = dice.randrange(12, min(len(mutant), HEADERS))
        mutant[at] = dice.choice((dice.randrange(256), dice.choice(EDGES), mutant[at] ^ 1 << dice.randrange(8)))
    shortest = min(SHORTEST.get(int.from_bytes(mutant[12:14]), 14), len(mutant))
    end = dice.randint(shortest, len(mutant)) if dice.random() < 0.2 else len(mutant)
    return bytes(mutant[:end])


def frames(source: str, sport: int, destination: str, dport: int) -> Iterator[bytes]:
    """Of every kind that a program tells apart, between two ends of one family."""
    ends = source, sport, destination, dport
    for flags in (SYN, SYN | ACK, ACK, FIN | ACK, RST):
        yield tcp(*ends, flags, b"data")
    yield tcp(*ends, ACK, bytes(LARGE))
    yield udp(*ends)
    yield udp(*ends, bytes(LARGE))
    yield sctp(*ends)
    yield from (echo(source, destination), echo(source, destination, reply=True))
    yield ip(source, destination, GRE, bytes(16))
    yield from (_in_fragments4 if ip_address(source).version == 4 else _behind_extensions)(*ends)


def errors(source: str, destination: str, quoted: Iterator[bytes]) -> Iterator[bytes]:
    """ICMP errors about packets, whole ones and what routers quote of them."""
    version = ip_address(source).version
    for frame in quoted:
        for part in (frame, frame[: 14 + (28 if version == 4 else 48)]):
            yield error(version, source, destination, part)
            yield error(version, source, destination, part, NARROW)


def _in_fragments4(source: str, sport: int, destination: str, dport: int) -> Iterator[bytes]:
    body = segment(source, sport, destination, dport, ACK, bytes(32))
    for protocol in (TCP, UDP, SCTP):
        yield ip(source, destination, protocol, body[:24], fragment=0x2000)
        yield ip(source, destination, protocol, body[24:], fragment=3)
    yield ip(source, destination, TCP, body, options=bytes([1] * 12))
    yield ip(source, destination, TCP, body[:24], options=bytes([1] * 40), fragment=0x2000)


def _behind_extensions(source: str, sport: int, destination: str, dport: int) -> Iterator[bytes]:
    body = segment(source, sport, destination, dport, ACK, bytes(32))
    for protocol in (TCP, UDP, SCTP):
        yield ip(source, destination, FRAGMENT, _fragment(protocol, 0, more=True) + body[:24])
        yield ip(source, destination, FRAGMENT, _fragment(protocol, 3, more=False) + body[24:])
    chain = _extension(ROUTING) + _extension(AUTHENTICATION) + _authentication(OPTIONS) + _extension(FRAGMENT)
    yield ip(source, destination, HOP_BY_HOP, chain + _fragment(TCP, 0, more=True) + body)
    yield ip(source, destination, OPTIONS, _extension(TCP) + body)
    yield ip(source, destination, OPTIONS, _extension(OPTIONS) * 5 + _extension(UDP) + body)


def _extension(inner: int) -> bytes:
    """Options or a route, 8 bytes."""
    return bytes([inner, 0, 1, 4, 0, 0, 0, 0])


def _authentication(inner: int) -> bytes:
    """RFC 4302: its length is in words, without the first two."""
    return bytes([inner, 4]) + bytes(22)


def _fragment(inner: int, offset: int, *, more: bool) -> bytes:
    return struct.pack("!BxHI", inner, offset << 3 | more, 7)
