"""Port prefixes of one peer with their verdicts, combined: deny beats allow beats default deny.

Where allowed by several, a rule that asks for the proxy beats those that do not: the proxy lets the others' through.

The kernel takes the longest match among the rows of a peer, so each row must already carry the strongest verdict of
everything that covers it. A row that says what its nearest covering row says is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from reconciler.compile.ports import PortPrefix, covering
from reconciler.model.datapath import Verdict


class Claim(NamedTuple):
    """What one entry of a policy says about some ports."""

    ports: tuple[PortPrefix, ...]
    verdict: Verdict
    cookie: int
    redirect: bool = False  # allowed, and the proxy has the last word


class PortRow(NamedTuple):
    prefix: PortPrefix
    verdict: Verdict
    cookie: int
    redirect: bool = False

    @property
    def strength(self) -> tuple[Verdict, bool]:
        """As in bpf/lib/policy.h."""
        return self.verdict, self.redirect


def combine(claims: Iterable[Claim]) -> list[PortRow]:
    """The rows of one peer, wider prefixes first. Of equal verdicts the first claim gives the cookie."""
    strongest: dict[PortPrefix, PortRow] = {}
    for ports, verdict, cookie, redirect in claims:
        for prefix in ports:
            known = strongest.get(prefix)
            if known is None or (verdict, redirect) > known.strength:
                strongest[prefix] = PortRow(prefix, verdict, cookie, redirect)
    if len(strongest) == 1:
        return list(strongest.values())
    return _without_repetition(strongest)


def _without_repetition(strongest: dict[PortPrefix, PortRow]) -> list[PortRow]:
    rows = []
    combined: dict[PortPrefix, PortRow] = {}
    for prefix in sorted(strongest, key=lambda wide: (wide.protocol != 0, wide.bits, wide.protocol, wide.port)):
        own = strongest[prefix]
        above = next((combined[wide] for wide in covering(prefix) if wide in combined), None)
        if above is None or own.strength > above.strength:
            combined[prefix] = own
            rows.append(own)
        else:
            combined[prefix] = above
    return rows
