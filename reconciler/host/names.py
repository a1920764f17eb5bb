"""Names and addresses that follow from what a workload is called: the same on every start, on every host.

A host end is called `pl`, the start of the workload's name, and a hash that keeps it apart from others of that name:
`plweb-3f2a91`. The kernel allows 15 bytes (linux/if.h, IFNAMSIZ with its final zero).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from reconciler.errors import CompileError

_NAME_LENGTH = 6
_HASH_LENGTH = 6
_ATTEMPTS = 64


def device_names(references: Iterable[str]) -> dict[str, str]:
    """workload reference -> name of its host end; unique among them, the same whatever the order.

    Where two hashes meet, the later one in alphabetical order moves on. Raises CompileError if that never ends.
    """
    taken: dict[str, str] = {}
    for reference in sorted(references):
        name = next((one for one in _candidates(reference) if one not in taken), None)
        if name is None:
            raise CompileError(f"no device name is left for workload {reference}")
        taken[name] = reference
    return {reference: name for name, reference in taken.items()}


def _candidates(reference: str) -> Iterable[str]:
    start = re.sub(r"[^a-z0-9]", "", reference.rpartition("/")[2].lower())[:_NAME_LENGTH]
    for attempt in range(_ATTEMPTS):
        yield f"pl{start}-{_hashed(reference, attempt).hex()[:_HASH_LENGTH]}"


def workload_mac(cluster: str, reference: str) -> str:
    """Locally administered and unicast (IEEE 802, the two low bits of the first byte)."""
    digest = hashlib.sha256(f"{cluster}/{reference}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))


def _hashed(reference: str, attempt: int) -> bytes:
    return hashlib.sha256(f"{attempt}:{reference}".encode()).digest()
