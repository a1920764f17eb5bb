"""What somebody else does to a host behind the daemon's back, by the tools that somebody else would use."""

from __future__ import annotations

import json
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

from reconciler.kernel import netns
from reconciler.kernel.bpf_maps import PinnedMaps
from reconciler.kernel.generation import Generation
from tests.e2e.daemon_host import DaemonHost


def bpftool(*arguments: str) -> str:
    done = subprocess.run(["bpftool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


def empty(map_: str) -> None:
    """Deletes every entry of a map, given as bpftool takes it: `pinned PATH` or `id N`.

    Until the daemon comes in between: an entry that it replaced is not there to be deleted.
    """
    dumped = json.loads(bpftool("-j", "map", "dump", *map_.split()))
    lines = [f"map delete {map_} key hex {' '.join(byte.removeprefix('0x') for byte in one['key'])}" for one in dumped]
    assert lines, f"{map_} is empty already"
    given = "\n".join([*lines, ""])
    done = subprocess.run(["bpftool", "batch", "file", "-"], capture_output=True, text=True, check=False, input=given)
    assert done.returncode == 0 or "delete failed: No such file or directory" in done.stderr, done.stderr


def erase(host: DaemonHost, name: str, workload: str) -> None:
    """The row of the workload's IPv4 address."""
    key = IPv4Address(host.addresses(workload)[0]).packed.hex(" ")
    bpftool("map", "delete", *pinned(host, name).split(), "key", "hex", *key.split())


def map_pin(host: DaemonHost, name: str) -> str:
    return str(host.config.pin_root / "maps" / name)


def pinned(host: DaemonHost, name: str) -> str:
    """One of the host's maps, as bpftool takes it."""
    return f"pinned {map_pin(host, name)}"


def policy_of(host: DaemonHost, workload: str) -> str:
    """The map that holds the policy of this workload's identity now, as bpftool takes it."""
    maps = PinnedMaps(host.config.pin_root)
    keys, ids = maps.open("policy").read()
    wanted = keys["subject"] == host.endpoint(workload)["identity"]
    (number,) = ids[wanted & (keys["generation"] == Generation(maps).current.generation)].tolist()
    return f"id {number}"


def forget_state(host: DaemonHost) -> None:
    """The word that says which policy counts becomes 0."""
    size = PinnedMaps(host.config.pin_root).open("state").info.value_size
    bpftool("map", "update", *pinned(host, "state").split(), "key", "hex", *"0000", "value", "hex", *["0"] * size)


def link_pin(host: DaemonHost, workload: str) -> str:
    """Of what judges the packets that the workload sends."""
    return str(host.config.pin_root / "links" / f"{host.device(workload)}-ingress")


def program_pin(host: DaemonHost, name: str) -> str:
    (found,) = (path for path in (host.config.pin_root / "programs").iterdir() if path.name.startswith(f"{name}-"))
    return str(found)


def sysctl(host: DaemonHost, name: str, value: str) -> None:
    with netns.inside(host.path):
        Path("/proc/sys", name).write_text(value)


def neighbour(host: DaemonHost, verb: str, *more: str) -> None:
    """The host's entry for the workload `web`."""
    host.ip("neighbour", verb, host.addresses("web")[0], *more, "dev", host.device("web"))


def in_web(host: DaemonHost, *arguments: str) -> str:
    return host.ip(*arguments, netns=host.inside("web"))


def tc(host: DaemonHost, *arguments: str) -> str:
    done = subprocess.run(["tc", "-n", host.name, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return done.stdout
