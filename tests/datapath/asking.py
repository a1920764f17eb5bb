"""A process of its own that uses sockets as it is told on its standard input, one line of Python each.

Each line is evaluated with `sockets` (a list) and the names of `socket`; its value, or the number of the error that it
raised, is answered as one line of JSON.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any


def answer(line: str, names: dict[str, Any]) -> Any:
    try:
        return {"value": eval(line, names)}  # what it evaluates is the test's own
    except OSError as error:
        return {"errno": error.errno}


def main() -> None:
    names: dict[str, Any] = {**vars(socket), "sockets": []}
    for line in sys.stdin:
        print(json.dumps(answer(line, names), default=lambda value: value.decode()), flush=True)


if __name__ == "__main__":
    main()
