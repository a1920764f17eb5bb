"""Headers for bcc without kernel headers: a tree that looks like a kernel's, made of user-space ones.

bcc includes a kernel source tree for types and constants. What we compile reads kernel structs by offsets from BTF
(kernel_layout.py), so the headers of linux-libc-dev do, once they stand where a kernel's would. bcc finds the tree by
BCC_KERNEL_SOURCE.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
from pathlib import Path

from reconciler.errors import FeatureMissing, PermissionMissing

CACHE = Path("/var/cache/plumbline")
USR_INCLUDE = Path("/usr/include")

# bcc ships bpf.h itself, with another include guard; if.h would pull in the C library's socket.h.
_EMPTY = ("bpf.h", "bpf_common.h", "kconfig.h", "log2.h", "version.h", "if.h")
_VERSION = """\
#define LINUX_VERSION_CODE {code}
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
"""
# Included before everything else (-include): how the kernel spells things.
_KCONFIG = """\
#ifndef PLUMBLINE_KCONFIG
#define PLUMBLINE_KCONFIG
#define CONFIG_64BIT 1
#define CONFIG_BPF_SYSCALL 1
#include <linux/types.h>
#include <linux/stddef.h>
typedef __u8 u8; typedef __u16 u16; typedef __u32 u32; typedef __u64 u64;
typedef __s8 s8; typedef __s16 s16; typedef __s32 s32; typedef __s64 s64;
typedef __kernel_size_t size_t; typedef unsigned long uintptr_t; typedef int pid_t; typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)
#define __user
#define __kernel
#endif
"""


def header_tree(cache: Path = CACHE, include: Path = USR_INCLUDE) -> Path:
    """The tree, built below `cache` if it is not there yet (10 ms), anew when the headers or the kernel change.

    Raises FeatureMissing if `include` has no kernel headers, PermissionMissing if `cache` cannot be written.
    """
    machine = _machine_headers(include)
    if not (include / "linux" / "types.h").is_file() or machine is None:
        raise FeatureMissing(f"{include} holds no Linux headers", remedy="apt-get install linux-libc-dev")
    tree = cache / f"bcc-headers-{_version(include)}"
    if tree.is_dir():
        return tree
    try:
        cache.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=".bcc-headers-", dir=cache))
    except OSError as error:
        raise PermissionMissing(f"cannot build headers for bcc below {cache}: {error.strerror}") from error
    try:
        building.chmod(0o755)
        _build(building, include, machine)
        building.rename(tree)
    except FileExistsError:
        pass  # somebody else was faster
    except OSError:
        if not tree.is_dir():  # ENOTEMPTY: the same
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return tree


def _build(tree: Path, include: Path, machine: Path) -> None:
    for directory in (tree / "include" / "uapi", tree / "include"):
        _link_all(include / "linux", directory / "linux")
        _link_all(machine, directory / "asm")
        (directory / "asm-generic").symlink_to(include / "asm-generic")
        for name in _EMPTY:
            _replace(directory / "linux" / name, "")
        _replace(directory / "linux" / "if.h", "#define IFNAMSIZ 16\n")
    _replace(tree / "include" / "linux" / "kconfig.h", _KCONFIG)
    _replace(tree / "include" / "linux" / "version.h", _VERSION.format(code=_release_code(platform.release())))
    _replace(tree / "include" / "asm" / "page.h", f"#define PAGE_SIZE {os.sysconf('SC_PAGE_SIZE')}UL\n")


def _link_all(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for entry in source.iterdir():
        (target / entry.name).symlink_to(entry)


def _replace(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text)


def _machine_headers(include: Path) -> Path | None:
    """Debian keeps asm/ below the multiarch triplet, others at the top."""
    candidates = (include / f"{platform.machine()}-linux-gnu" / "asm", include / "asm")
    return next((path for path in candidates if path.is_dir()), None)


def _version(include: Path) -> str:
    """Changes with the headers' version, the kernel's, and with what we make of them."""
    said = (include / "linux" / "version.h").read_bytes() + platform.release().encode() + platform.machine().encode()
    return hashlib.sha256(said + _KCONFIG.encode() + _VERSION.encode()).hexdigest()[:12]


def _release_code(release: str) -> int:
    """`6.18.44-fc` -> KERNEL_VERSION(6, 18, 44)."""
    numbers = [int("".join(filter(str.isdigit, part)) or 0) for part in release.partition("-")[0].split(".")[:3]]
    major, minor, patch = [*numbers, 0, 0, 0][:3]
    return (major << 16) + (minor << 8) + min(patch, 255)
