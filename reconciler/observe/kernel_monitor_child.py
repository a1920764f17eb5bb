"""The short-lived process that compiles a kernel filter with bcc and streams what matches: nothing else imports bcc.

In, on standard input: one JSON line `{"program": C, "tracepoint": name}`. It ends when its input does, so it never
outlives whoever started it.
Out, on standard output, JSON lines: `{"ready": true}` once events flow; then a record each; `{"lost": n}` when n more
did not fit; or, instead of all that, `{"error": text, "kind": "feature" | "kernel"}`.
"""

from __future__ import annotations

import contextlib
import json
import select
import sys
from typing import Any

_POLL_MS = 300
_NUMBERS = ("time_ns", "netns", "length", "ifindex", "reason", "state", "oldstate", "newstate", "sport", "dport")


def main() -> int:
    request = json.loads(sys.stdin.buffer.readline())
    try:
        from bcc import BPF
    except ImportError:
        return _fail("feature", "bcc is not installed for this Python")
    try:
        bpf = BPF(text=request["program"])
        bpf.load_func("probe", BPF.RAW_TRACEPOINT)
    except Exception as error:  # bcc raises nothing narrower
        return _fail("kernel", f"bcc cannot compile or load the filter: {error}")
    try:
        bpf.attach_raw_tracepoint(tp=request["tracepoint"], fn_name="probe")
    except Exception as error:
        return _fail("feature", f"cannot attach to the tracepoint {request['tracepoint']}: {error}")
    with contextlib.suppress(BrokenPipeError):
        _stream(bpf)
    return 0


def _stream(bpf: Any) -> None:
    def deliver(_context: object, data: int, _size: int) -> None:
        _say(_shown(bpf, bpf["records"].event(data)))

    bpf["records"].open_ring_buffer(deliver)
    _say({"ready": True})
    lost = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        bpf.ring_buffer_poll(_POLL_MS)
        missed = bpf["lost"][0].value
        if missed > lost:
            _say({"lost": missed - lost})
            lost = missed


def _shown(bpf: Any, record: Any) -> dict[str, object]:
    shown: dict[str, object] = {name: getattr(record, name) for name in _NUMBERS}
    shown["family"] = record.family
    shown["protocol"] = record.protocol
    shown["saddr"] = bytes(record.saddr).hex()
    shown["daddr"] = bytes(record.daddr).hex()
    shown["ifname"] = bytes(record.ifname).split(b"\0")[0].decode(errors="replace")
    location = bpf.ksym(record.location, show_offset=True) if record.location else b""
    shown["location"] = location.decode(errors="replace")
    return shown


def _fail(kind: str, text: str) -> int:
    _say({"error": text, "kind": kind})
    return 1


def _say(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
