"""Numbers for names that nobody hands out: CIDR identities, refined identities, rule cookies.

A number must not change its meaning while flows live that were judged by it, and the result must not depend on what
was compiled before. So a number is drawn by hash, and where two names draw the same one, neither gets it: both draw
again. The numbers are thus a function of the set of names alone; a name that comes or goes can move another name only
if the two collide, and then the contested number falls idle instead of changing hands.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from hashlib import blake2b

from reconciler.errors import CompileError

CROWD = 8  # contested numbers lie idle: above one name in so many numbers they would crowd out the rest
Draw = Callable[[str, int], int]


def hashed(name: str, attempt: int) -> int:
    """64 bits that depend on the name and the attempt, the same on every host and after every restart."""
    return int.from_bytes(blake2b(f"{attempt}:{name}".encode(), digest_size=8).digest(), "little")


def number(names: Iterable[str], size: int, draw: Draw = hashed) -> dict[str, int]:
    """name -> number in 0..size-1, all different. Raises CompileError above an eighth of `size` names."""
    waiting = sorted(set(names))
    if len(waiting) > size // CROWD:
        raise CompileError(f"{len(waiting)} names are too many for {size} numbers")
    numbers: dict[str, int] = {}
    drawn: set[int] = set()
    attempt = 0
    while waiting:
        claims: defaultdict[int, list[str]] = defaultdict(list)
        for name in waiting:
            claims[draw(name, attempt) % size].append(name)
        alone = {claimants[0]: claim for claim, claimants in claims.items() if len(claimants) == 1}
        won = {name: claim for name, claim in alone.items() if claim not in drawn}
        numbers |= won
        drawn |= claims.keys()
        waiting = [name for name in waiting if name not in won]
        attempt += 1
    return numbers
