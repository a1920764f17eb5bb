"""What measurements need beside the product: BPF objects and C programs, compiled when they are first needed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from reconciler.datapath.build import build

_HERE = Path(__file__).parent
CHECKOUT = _HERE.parents[1]
OBJECTS = CHECKOUT / "build" / "bench"


def build_all() -> None:
    """Raises KernelError for the BPF objects, CalledProcessError for the rest; what is up to date is left."""
    build(_HERE / "bpf", OBJECTS)
    for source in sorted((_HERE / "native").glob("*.c")):
        target = OBJECTS / source.stem
        if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
            subprocess.run(
                ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(target), str(source), "-lbpf"], check=True
            )
