"""The BPF file system: is it mounted, and what a pin may be called.

bpffs keeps names with a dot to itself (kernel kernel/bpf/inode.c, bpf_lookup), so what comes from outside is escaped.
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

from reconciler.bpf.syscalls import refusal
from reconciler.errors import KernelError

MOUNT_POINT = Path("/sys/fs/bpf")

_ESCAPED = re.compile("[%./]")
_OCTAL = re.compile(r"\\(\d{3})")


def ensure(root: Path) -> None:
    """Make the pin root with its folders; mount bpffs at /sys/fs/bpf first if the root lies there and it is missing.

    Raises KernelError, with what to do, where the root is on another file system or has a dot in its name.
    """
    if not is_bpffs(root):
        if not root.is_relative_to(MOUNT_POINT):
            raise KernelError(
                f"{root} is not on a BPF file system", remedy=f"mount one there: mount -t bpf bpf {root.parent}"
            )
        mount(MOUNT_POINT)
    if "." in "".join(root.relative_to(mount_point(root) or MOUNT_POINT).parts):
        raise KernelError(f"{root}: the BPF file system allows no dots in names")
    for folder in ("maps", "programs", "links"):
        try:
            (root / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise refusal(error.errno or 0, f"making {root / folder}") from error


def mount(point: Path) -> None:
    """Mount bpffs. Raises PermissionMissing without CAP_SYS_ADMIN, KernelError if the folder is missing."""
    libc = ctypes.CDLL(None, use_errno=True)
    nosuid_nodev_noexec = 2 | 4 | 8
    if libc.mount(b"bpf", os.fsencode(point), b"bpf", ctypes.c_ulong(nosuid_nodev_noexec), b"mode=0700"):
        raised = refusal(ctypes.get_errno(), f"mounting the BPF file system at {point}")
        raised.remedy = f"mount it as root: mount -t bpf bpf {point}"
        raise raised


def is_bpffs(path: Path) -> bool:
    """Whether the path is, or would be, on a mounted bpffs."""
    return mount_point(path) is not None


def mount_point(path: Path) -> Path | None:
    """Where the bpffs that holds `path` is mounted; None if something else holds it."""
    best, kind = Path(), ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        point = Path(_OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4]))
        if path.is_relative_to(point) and len(point.parts) >= len(best.parts):
            best, kind = point, fields[fields.index("-") + 1]
    return best if kind == "bpf" else None


def escaped(name: str) -> str:
    """A name as bpffs takes it: `eth0.100` is `eth0%2e100`."""
    return _ESCAPED.sub(lambda match: f"%{ord(match[0]):02x}", name)


def unescaped(name: str) -> str:
    return re.sub("%([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), name)
