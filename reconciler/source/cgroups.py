"""The cgroup whose sockets a Workload or a Node speaks of: a path below the mount of the cgroup2 file system."""

from __future__ import annotations

from reconciler.source.node import Findings, Node

# A link on a cgroup is pinned under the path's name, of which `/`, `.` and `%` take three bytes each (bpf/bpffs.py).
LONGEST = 240


def cgroup(spec: Node, findings: Findings, *, root: bool) -> str | None:
    """Without the slashes around it; '' is the root, a fault unless `root` allows it. None if nothing is said."""
    text: str | None = spec.read("cgroup")
    if text is None:
        return None
    place, path = spec.place_of("cgroup"), text.removeprefix("/").removesuffix("/")
    if not path:
        if not root:
            findings.fault(place, "the root cgroup has the host's own processes: name the one of the workload")
        return path
    if not path.isprintable() or any(part in ("", ".", "..") for part in path.split("/")):
        findings.fault(place, f'cgroup "{text}" must be a path below the mount of the cgroup2 file system')
    elif len(path.encode()) + 2 * sum(map(path.count, "/.%")) > LONGEST:
        findings.fault(place, f"cgroup has {len(path)} characters; {LONGEST} fit, `/`, `.` and `%` counted three times")
    return path
