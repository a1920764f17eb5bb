"""What a measurement says, what is asked of it, and how both are written down.

`ratio` is value to baseline of the same run, so that a slow machine is slow on both sides.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# name -> (must, aim), in the unit of the figure: what is asked for. Smaller is better.
TARGETS: dict[str, tuple[float, float]] = {
    "packet.established": (200, 120),
    "packet.established_to_world": (185, 115),
    "packet.denied_with_event": (120, 75),
    "packet.new": (1100, 750),
    "packet.established.rows_100000_to_10": (1.05, 1.02),
    "across.vxlan.established_egress": (185, 115),
    "across.native.established_egress": (185, 115),
    "service.established": (350, 200),
    "xdp.known_flow": (95, 65),
    "xdp.not_ours": (37, 25),
    "xdp.direct_known_flow": (95, 65),
    "xdp.direct_new_flow": (670, 450),
    "services.maglev.moved_besides_its_own": (2, 2),
    "table_change.lost": (0, 0),
    "path.forwarded": (780, 655),
    "push.policies_1000.p50": (300, 150),
    "push.policies_1000.p99": (1000, 1000),
    "repair.map_row.p50": (1, 0.05),
    "repair.route.p50": (2, 1),
    "repair.program.p50": (2, 1),
    "rows.ipcache.audit": (150, 100),
    "rows.engine.converge_to_c": (1.5, 1.0),
    "rows.one_rule_changed": (5, 1),
    "compile.identities_10000.policies_10000.cold": (2000, 1000),
    "compile.identities_10000.policies_10000.one_changed": (50, 20),
    "compile.identities_10000.policies_10000_here.one_changed": (50, 20),
    "verdict.rows": (100, 100),
    "verdict.kernel": (500, 500),
    "daemon.resident": (80, 60),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """`baseline` is in the same unit and from the same run, None where there is none."""

    name: str
    value: float
    unit: str
    baseline: float | None = None

    @property
    def ratio(self) -> float | None:
        return self.value / self.baseline if self.baseline else None

    @property
    def must(self) -> float | None:
        return TARGETS.get(self.name, (None, None))[0]

    @property
    def aim(self) -> float | None:
        return TARGETS.get(self.name, (None, None))[1]

    def document(self) -> dict[str, object]:
        return {
            "name": self.name,
            "value": _short(self.value),
            "unit": self.unit,
            "baseline": _short(self.baseline),
            "ratio": _short(self.ratio),
            "must": self.must,
            "aim": self.aim,
        }


def write(figures: Iterable[Figure], group: str, path: Path) -> None:
    """Replaces what the file had of the group; a figure's group is its name up to the first dot."""
    kept = [one for one in _read(path) if str(one["name"]).partition(".")[0] != group]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept + [figure.document() for figure in figures], indent=2) + "\n")


def table(figures: Iterable[Figure]) -> str:
    head = ("name", "value", "unit", "baseline", "ratio", "must", "aim", "")
    rows = [head] + [_cells(figure) for figure in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in (0, 2, 7) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def machine() -> str:
    """What the figures were measured on, in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(models)} cores of {models[0] if models else platform.machine()}, kernel {platform.release()}"


def median(values: Iterable[float]) -> float:
    return percentile(values, 50)


def percentile(values: Iterable[float], percent: float) -> float:
    """The nearest one that was measured, never between two."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def _cells(figure: Figure) -> tuple[str, ...]:
    numbers = (figure.baseline, figure.ratio, figure.must, figure.aim)
    return (figure.name, _text(figure.value), figure.unit, *map(_text, numbers), _judged(figure))


def _judged(figure: Figure) -> str:
    if figure.must is None or figure.aim is None:
        return ""
    if figure.value > figure.must:
        return "MISSED"
    return "reached" if figure.value <= figure.aim else "within"


def _text(value: float | None) -> str:
    return "" if value is None else f"{_short(value):.10g}"


def _short(value: float | None) -> float | None:
    """Four digits are more than any measurement here is good for."""
    return None if value is None else float(f"{value:.4g}")


def _read(path: Path) -> list[dict[str, object]]:
    try:
        found: list[dict[str, object]] = json.loads(path.read_text())
    except (OSError, ValueError):
        return []
    return found
