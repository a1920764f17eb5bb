"""Measures what Plumbline claims: `python -m tests.bench [NAME...]`, as root. Prints a table, writes build/bench.json.

Each NAME is a module here with a `measure()`; without names all are run, one after the other.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module

from tests.bench import figures
from tests.bench.building import CHECKOUT, build_all

GROUPS = (
    "packet",
    "path",
    "outside",
    "service",
    "nodeport",
    "spread",
    "table_change",
    "xdp",
    "lookup",
    "wire",
    "across",
    "rows",
    "compile",
    "services",
    "services_daemon",
    "prefilter",
    "verdict",
    "push",
    "push_hosts",
    "cluster",
    "repair",
    "daemon",
    "playbook",
    "store",
    "fanout",
    "fetch",
)
RESULT = CHECKOUT / "build" / "bench.json"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(GROUPS)}")
    names = parser.parse_args().names or list(GROUPS)
    if unknown := set(names) - set(GROUPS):
        parser.error(f"no measurement {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    if os.geteuid():
        parser.error("root is needed: network namespaces and BPF")
    build_all()
    found: list[figures.Figure] = []
    for name in names:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        group = list(import_module(f"tests.bench.{name}").measure())
        figures.write(group, name, RESULT)
        found += group
    print(f"{figures.machine()}\n\n{figures.table(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
