"""Where the files are that we ship beside the code: JSON Schemas, built BPF objects and the example to start from.

A wheel carries them inside the package; a checkout has them at its top level.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent
_CHECKOUT = _PACKAGE.parent


def schemas() -> Path:
    shipped = _PACKAGE / "_shipped" / "schemas"
    return shipped if shipped.is_dir() else _CHECKOUT / "schemas"


def bpf_objects() -> Path:
    shipped = _PACKAGE / "_shipped" / "bpf"
    return shipped if shipped.is_dir() else _CHECKOUT / "build" / "bpf"


def quickstart() -> Path:
    shipped = _PACKAGE / "_shipped" / "quickstart"
    return shipped if shipped.is_dir() else _CHECKOUT / "examples" / "quickstart"
