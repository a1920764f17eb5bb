"""What this process must be allowed before it writes anything: a transaction that cannot be written cannot be undone.

Whoever has SYS_ADMIN may do what BPF allows. Source: linux/capability.h, proc_pid_status(5).
"""

from __future__ import annotations

from pathlib import Path

from reconciler.errors import PermissionMissing

_NET_ADMIN, _SYS_ADMIN, _BPF = 12, 21, 39
_NEEDED = {"CAP_NET_ADMIN": (_NET_ADMIN,), "CAP_BPF": (_BPF, _SYS_ADMIN)}


def require_capabilities() -> None:
    """Raises PermissionMissing, naming all that are missing."""
    lines = Path("/proc/thread-self/status").read_text().splitlines()
    (effective,) = (int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    missing = [name for name, enough in _NEEDED.items() if not any(effective >> number & 1 for number in enough)]
    if missing:
        raise PermissionMissing(f"this process has no {' and no '.join(missing)}; nothing was changed")
