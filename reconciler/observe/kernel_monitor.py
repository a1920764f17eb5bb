"""`plumb monitor --kernel EXPR`: what happens in the kernel, filtered there, by a program compiled for this question.

The expression is parsed and turned into C here; a child process compiles it with bcc and streams what matches. So this
process stays small, never imports bcc, and a compiler that crashes takes nothing with it.
"""

from __future__ import annotations

import errno
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import TracebackType

from reconciler.errors import FeatureMissing, KernelError, PermissionMissing
from reconciler.observe.bcc_headers import CACHE, header_tree
from reconciler.observe.events import wall_clock_offset_ns
from reconciler.observe.flow import PROTOCOL_NAMES
from reconciler.observe.kernel_events import TCP_STATES, Event, Kind, catalogue, describe
from reconciler.observe.kernel_expression import Filter, parse
from reconciler.observe.kernel_layout import KernelTypes, Layout, layout
from reconciler.observe.kernel_program import program
from reconciler.observe.kernel_types import RunningKernel

START_TIMEOUT_S = 60.0
_END_TIMEOUT_S = 3.0
_CHILD = "reconciler.observe.kernel_monitor_child"
_INSTALL_BCC = (
    "apt-get install python3-bpfcc (a virtual environment must see Debian's packages: --system-site-packages)"
)
_STATE_NAMES = {number: name for name, number in TCP_STATES.items()}
_STDERR_LINES = 5


@dataclass(frozen=True, slots=True)
class KernelEvent:
    """One event that matched. `fields`: those of its kind, names instead of numbers where there are any.
    `location`: the kernel function that dropped the packet, '' for other events.
    """

    time_ns: int  # since 1970, UTC
    event: str
    fields: Mapping[str, str | int]
    location: str = ""

    def to_json(self) -> dict[str, object]:
        when = datetime.fromtimestamp(self.time_ns / 1e9, UTC).isoformat(timespec="microseconds")
        shown: dict[str, object] = {"time": when, "event": self.event, **self.fields}
        return {**shown, "location": self.location} if self.location else shown

    def __str__(self) -> str:
        """`12:01:02.345 drop tcp 10.0.0.1:4242 -> 10.0.0.2:80  reason=NO_SOCKET ... at tcp_v4_rcv+0x1f`"""
        when = datetime.fromtimestamp(self.time_ns / 1e9).strftime("%H:%M:%S.%f")[:-3]
        ends = [_end(str(self.fields[f"{end}addr"]), self.fields[f"{end}port"]) for end in "sd"]
        said = ("family", "protocol", "saddr", "daddr", "sport", "dport")
        rest = " ".join(f"{name}={value}" for name, value in self.fields.items() if name not in said)
        where = f" at {self.location}" if self.location else ""
        return f"{when} {self.event} {self.fields['protocol']} {ends[0]} -> {ends[1]}  {rest}{where}"


class KernelMonitor:
    """A running filter; a context manager. Iterating waits for events; `read` takes what is there.

    Returns once events flow (0.5 to 1 s). `lost` counts events that matched and did not fit.

    Raises UsageError for a wrong expression, FeatureMissing without bcc, headers, BTF or the tracepoint,
    PermissionMissing without CAP_BPF and CAP_PERFMON, KernelError if the compiler or the kernel refuses the program.
    """

    def __init__(
        self,
        expression: str,
        types: KernelTypes | None = None,
        *,
        cache: Path = CACHE,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        places = kernel_layout(types or RunningKernel())
        self.filter: Filter = parse(expression, catalogue(places.reasons))
        self.lost = 0
        self._names = {number: name for name, number in places.reasons.items()}
        self._rest = b""
        request = {"program": program(self.filter, places), "tracepoint": self.filter.event.tracepoint}
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the child
        self._child = subprocess.Popen(
            [sys.executable, "-m", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, "BCC_KERNEL_SOURCE": str(header_tree(cache))},
            start_new_session=True,  # an interrupt from the terminal is for us
        )
        assert self._child.stdin
        assert self._child.stdout
        os.set_blocking(self._child.stdout.fileno(), False)
        try:
            self._child.stdin.write(json.dumps(request).encode() + b"\n")
            self._child.stdin.flush()
            self._await_ready(time.monotonic() + start_timeout_s)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The child's."""
        return self._child.pid

    def fileno(self) -> int:
        """Readable when there is something to read, or the child has ended."""
        assert self._child.stdout
        return self._child.stdout.fileno()

    def read(self) -> list[KernelEvent]:
        """What has arrived; never waits. Raises KernelError once the child has ended."""
        events = []
        for line in self._lines():
            if "lost" in line:
                self.lost += _number(line["lost"])
            else:
                events.append(self._event(line))
        return events

    def __iter__(self) -> Iterator[KernelEvent]:
        while True:
            select.select([self], [], [])
            yield from self.read()

    def __enter__(self) -> KernelMonitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the child: it goes when its input does."""
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe:
                pipe.close()
        try:
            self._child.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._stderr.close()

    def _await_ready(self, deadline: float) -> None:
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self], [], [], left)[0]:
                raise KernelError("compiling the kernel filter took too long")
            for line in self._lines():
                if "error" in line:
                    raise self._failure(str(line["kind"]), str(line["error"]))
                if "ready" in line:
                    return

    def _lines(self) -> Iterator[dict[str, object]]:
        raw, ended = _read_available(self.fileno())
        if ended and not raw:
            raise self._failure("kernel", "the process that runs the kernel filter has ended")
        *whole, self._rest = (self._rest + raw).split(b"\n")
        return map(json.loads, whole)

    def _failure(self, kind: str, text: str) -> KernelError:
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace").strip().splitlines()
        detail = "".join(f"\n  {line}" for line in said[-_STDERR_LINES:])
        if os.strerror(errno.EPERM) in text + detail:
            return PermissionMissing("the kernel does not let this process load a tracing program")
        if kind == "feature":
            return FeatureMissing(text + detail, remedy=_INSTALL_BCC if "not installed" in text else "")
        return KernelError(text + detail)

    def _event(self, line: Mapping[str, object]) -> KernelEvent:
        event = self.filter.event
        fields = {name: self._shown(event, name, line) for name in event.fields}
        return KernelEvent(_number(line["time_ns"]) + wall_clock_offset_ns(), event.name, fields, str(line["location"]))

    def _shown(self, event: Event, name: str, line: Mapping[str, object]) -> str | int:
        value = line[name]
        match event.fields[name].kind:
            case Kind.ADDRESS:
                return _address(_number(line["family"]), bytes.fromhex(str(value)))
            case Kind.TEXT:
                return str(value)
            case Kind.NAME:
                names = {"protocol": PROTOCOL_NAMES, "reason": self._names}.get(name, _STATE_NAMES)
                return names.get(_number(value), str(value))
        return _number(value)


def vocabulary(types: KernelTypes | None = None) -> str:
    """Help: every event with its fields, and what this kernel calls its drop reasons."""
    reasons = kernel_layout(types or RunningKernel()).reasons
    return f"{describe(catalogue(reasons))}\n\nreasons: {', '.join(reasons)}"


def kernel_layout(types: KernelTypes) -> Layout:
    """What a filter needs to know of this kernel; 3 ms. Raises FeatureMissing without it."""
    return layout(types, tuple(event.tracepoint for event in catalogue({}).values()))


def _read_available(descriptor: int) -> tuple[bytes, bool]:
    """What is in the pipe, and whether its other end is closed."""
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return b"".join(parts), False
        if not part:
            return b"".join(parts), True
        parts.append(part)


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value


def _address(family: int, raw: bytes) -> str:
    if family not in (4, 6):
        return ""
    return str(IPv4Address(raw[:4]) if family == 4 else IPv6Address(raw))


def _end(address: str, port: str | int) -> str:
    if not port:
        return address or "-"
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
