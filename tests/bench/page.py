"""Puts the figures of build/bench.json into docs/performance.md: `python -m tests.bench.page`.

A block begins with a comment that names its group, `<!-- packet -->`, and ends with `<!-- /packet -->`. What was not
measured stays as it is.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tests.bench.building import CHECKOUT
from tests.bench.figures import machine

PAGE = CHECKOUT / "docs" / "performance.md"
RESULT = CHECKOUT / "build" / "bench.json"

_BLOCK = re.compile(r"<!-- (\w+) -->\n.*?<!-- /\1 -->", re.DOTALL)


def main() -> None:
    figures = json.loads(RESULT.read_text())
    PAGE.write_text(_BLOCK.sub(lambda block: _filled(block, figures), PAGE.read_text()))


def _filled(block: re.Match[str], figures: list[dict[str, Any]]) -> str:
    name = block[1]
    found = [figure for figure in figures if str(figure["name"]).partition(".")[0] == name]
    if not found and name != "machine":
        return block[0]
    content = _table(found) if found else machine()
    return f"<!-- {name} -->\n{content}\n<!-- /{name} -->"


def _table(figures: list[dict[str, Any]]) -> str:
    rows = ["| name | value | baseline | ratio | must | aim |", "|---|---|---|---|---|---|"]
    for figure in figures:
        numbers = (_text(figure[column]) for column in ("baseline", "ratio", "must", "aim"))
        rows.append(f"| `{figure['name']}` | {_text(figure['value'])} {figure['unit']} | {' | '.join(numbers)} |")
    return "\n".join(rows)


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"


if __name__ == "__main__":
    main()
