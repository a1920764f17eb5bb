"""What translates services for the sockets of a cgroup: a program on each of its hooks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reconciler.compile.tables import AskedRow
from reconciler.errors import CompileError
from reconciler.model.cluster import Node, Workload
from reconciler.model.datapath import AttachmentRow, CgroupKey, SocketHook


def socket_rows(asking: Workload | Node, programs: Mapping[str, str]) -> Iterator[AskedRow]:
    """None where no cgroup is named. `programs`: name -> digest. Raises CompileError for one that is not among them."""
    if asking.cgroup is None:
        return
    for hook in SocketHook:
        program = f"socket_{hook}"
        if program not in programs:
            raise CompileError(f"the program {program} is not built")
        row = AttachmentRow(program, programs[program])
        yield AskedRow("cgroups", CgroupKey(asking.cgroup, hook), row, asking.origin)
