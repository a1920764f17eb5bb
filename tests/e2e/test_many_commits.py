"""A thousand policy commits under a flood of packets: none is judged by a mixture, none leaves anything behind."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.bpf.syscalls import held
from reconciler.host import Host
from reconciler.kernel import netns, subjects
from reconciler.kernel.bpf_maps import PinnedMaps
from tests.e2e.daemon_host import DaemonHost, allowing, made_host, policy, until
from tests.e2e.packet_flow import lossless, stopped

pytestmark = pytest.mark.root

COMMITS = 1000  # about 25 s
PORT, OTHER, ALWAYS = 4000, 4001, 4002
WORKLOADS = 2
FIXED = ["10.46.0.60", "fd46::60"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonHost]:
    with made_host(tmp_path_factory.mktemp("h"), "web", "client", started=False) as made:
        made.write("workloads/web.yaml", made.workload("web", addresses=FIXED))
        yield made


def test_a_thousand_commits_mix_nothing_lose_nothing_and_leave_nothing(made: DaemonHost) -> None:
    """One forbids a flow to the sender and lets the receiver take it, the other the other way round."""
    commits = [_both(made, PORT, OTHER), _both(made, OTHER, PORT)]
    with netns.inside(made.path), Host.open(made.config) as host:
        for commit in (*commits, commits[0]):
            host.converge(commit)
        before = _settled(made.config.pin_root)
        with stopped(made, "client", "web", PORT, FIXED) as flood, lossless(made, "client", "web", ALWAYS, FIXED):
            sent = flood.sent
            for turn in range(1, COMMITS + 1):
                host.converge(commits[turn % 2])
            assert flood.sent - sent > COMMITS
        assert host.base == commits[COMMITS % 2]
        assert _settled(made.config.pin_root) == before


def _settled(pin_root: Path) -> Counter[str]:
    """The last generation's tries are given back a grace period after the flip."""
    gc.collect()  # what tests before this one left open in this process
    until(lambda: _kernel_memory(pin_root)["tries"] == WORKLOADS, "the last generation is gone")
    return _kernel_memory(pin_root)


def _kernel_memory(pin_root: Path) -> Counter[str]:
    """Bytes of our maps by name, policy's tries among them, and how many maps, programs and links we hold open."""
    links = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if _is_open(name)]
    found = Counter(link for link in links if link.startswith("anon_inode:bpf"))
    pinned = PinnedMaps(pin_root)
    for path in (pin_root / "maps").iterdir():
        found[path.name] = _bytes(pinned.open(path.name).descriptor)
    _, tries = pinned.open("policy").read()
    found["tries"] = len(tries)
    for descriptor in subjects.open_rows(tries.tolist()):
        with held(descriptor):
            found["bytes of tries"] += _bytes(descriptor)
    return found


def _is_open(name: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{name}")  # not the one that listed them


def _bytes(descriptor: int) -> int:
    """As the kernel counts them (map_mem_usage, kernel 6.4)."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    (memory,) = (line.split()[1] for line in lines if line.startswith("memlock:"))
    return int(memory)


def _both(host: DaemonHost, sender: int, receiver: int) -> str:
    """At which port `client` may send to `web`, and at which `web` may hear it; one more port is open to both."""
    host.write("policies/client.yaml", policy("client", "client", egress=[allowing("to", "web", sender, ALWAYS)]))
    host.write("policies/web.yaml", policy("web", "web", ingress=[allowing("from", "client", receiver, ALWAYS)]))
    return host.commit()
