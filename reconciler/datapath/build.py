"""Compiling `bpf/` to objects, where Plumbline is built: `python -m reconciler.datapath.build`.

Hosts need no compiler, they get the objects. The same source gives the same bytes on every machine with the same
clang: no paths, no debug information but BTF.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from reconciler.errors import KernelError, PlumbError

log = logging.getLogger(__name__)

SUFFIX = ".bpf.c"
_FLAGS = ("-O2", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers", "-target", "bpf")
_REMEDY = "install what builds BPF programs: apt-get install clang llvm libbpf-dev"


def build(source: Path, target: Path, *, always: bool = False) -> list[Path]:
    """Compile every `*.bpf.c` below `source` that changed, and remove objects without a source.

    Returns the objects written: `target/NAME.bpf.o`, whatever folder its source is in. Raises KernelError with what
    the compiler said.
    """
    target.mkdir(parents=True, exist_ok=True)
    sources = sorted(source.rglob(f"*{SUFFIX}"))
    objects = {path: target / (path.name.removesuffix(".c") + ".o") for path in sources}
    if len(set(objects.values())) < len(objects):
        raise KernelError(f"two files below {source} have the same name")
    for stale in set(target.glob("*.bpf.o")) - set(objects.values()):
        stale.unlink()
    newest = max((path.stat().st_mtime_ns for path in source.rglob("*.h")), default=0)
    written = [target for path, target in objects.items() if always or _is_older(target, path, newest)]
    for path, object_ in objects.items():
        if object_ in written:
            compile_object(path, object_, source)
    return written


def compile_object(source: Path, target: Path, root: Path) -> None:
    """One object, put in its place when it is complete; it knows its source by a path relative to `root`."""
    fresh = target.resolve().with_suffix(".o.new")
    files = ("-fdebug-compilation-dir=.", "-c", str(source.relative_to(root)), "-o", str(fresh))
    _run([os.environ.get("CLANG", "clang"), *_FLAGS, *_includes(), *files], root)
    _run([os.environ.get("LLVM_STRIP", "llvm-strip"), "-g", str(fresh)], root)
    fresh.replace(target)
    log.info("built object=%s bytes=%d", target.name, target.stat().st_size)


def _is_older(target: Path, source: Path, headers_ns: int) -> bool:
    if not target.exists():
        return True
    return target.stat().st_mtime_ns < max(source.stat().st_mtime_ns, headers_ns)


def _includes() -> Iterable[str]:
    """Debian keeps <asm/types.h> in a folder named after the architecture; elsewhere clang finds it by itself."""
    for command in (["gcc", "-print-multiarch"], ["dpkg-architecture", "-q", "DEB_HOST_MULTIARCH"]):
        if shutil.which(command[0]):
            name = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
            folder = Path("/usr/include") / name
            if name and folder.is_dir():
                return ("-idirafter", str(folder))
    return ()


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    except FileNotFoundError as error:
        raise KernelError(f"{command[0]} is not installed", remedy=_REMEDY) from error
    if done.returncode:
        raise KernelError(f"{' '.join(command)}\n{done.stderr.strip()}")


def main() -> int:
    checkout = Path(__file__).resolve().parents[2]
    try:
        written = build(checkout / "bpf", checkout / "build" / "bpf", always="--always" in sys.argv[1:])
    except PlumbError as error:
        print(f"error: {error}", *([error.remedy] if error.remedy else []), sep="\n", file=sys.stderr)
        return error.exit_code
    for path in written:
        print(f"built {path.relative_to(checkout)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
