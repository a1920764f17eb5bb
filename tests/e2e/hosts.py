"""Several hosts for tests of the network between them: namespaces on one bridge, each with a state of its own.

No daemon runs: `converge` brings every host to the branch's commit in this process. The bridge's namespace is a
stranger with a device on the same segment. Everything is named after the test process; `remove` says what was left
behind.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reconciler.config import Config, make
from reconciler.host import Host
from reconciler.kernel import link_messages, netns
from reconciler.kernel.netlink import Netlink
from tests.e2e.daemon_host import BPFFS, NAMESPACE, NETNS, cluster, document, make_namespace

_numbers = itertools.count()
_AUTHOR = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "gc.auto=0")
STRANGER = 99


class Hosts:
    """Hosts `h1`, `h2`, ... with the addresses 10.98.0.N and fd98::N, and the CIDRs 10.47.N.0/24 and fd47:N::/112.

    Each has the workloads `a` and `b`, called `aN` and `bN`, with `app: a` and `app: b`: 10.47.N.10 and 11, and so on.
    """

    def __init__(self, directory: Path, count: int) -> None:
        self.tag = f"pt-n{os.getpid()}-{next(_numbers)}"
        self.directory = directory
        self.tree = directory / "policies"
        self.numbers = range(1, count + 1)

    def make(self, addresses: Mapping[int, list[str]] | None = None, **spec: Any) -> None:
        """`spec`: of the Cluster. `addresses`: of nodes that are to have others than the usual two."""
        make_namespace(self.space("wire"))
        self.ip("wire", "link", "add", "br0", "type", "bridge")
        self.ip("wire", "link", "set", "br0", "up")
        for address in self.underlay(STRANGER):
            self.ip("wire", "address", "add", f"{address}/24" if "." in address else f"{address}/64", "dev", "br0")
        self.tree.mkdir()
        self.git("init", "-q", "-b", "main")
        self.write("cluster.yaml", cluster(**spec) + NAMESPACE)
        for number in self.numbers:
            self._make_host(number)
            on = (addresses or {}).get(number, self.underlay(number))
            node = {"addresses": on, "cidrs": [f"10.47.{number}.0/24", f"fd47:{number}::/112"]}
            self.write(f"nodes/h{number}.yaml", document("Node", f"h{number}", node))
            for name in ("a", "b"):
                self.write(f"workloads/{name}{number}.yaml", self.workload(name, number))

    def _make_host(self, number: int) -> None:
        for name in (f"h{number}", f"a{number}", f"b{number}"):
            make_namespace(self.space(name))
        there = Path(self.space(f"h{number}")).name
        self.ip("wire", *f"link add p{number} master br0 up type veth peer name eth0 netns {there}".split())
        for address in self.underlay(number):
            length = 24 if "." in address else 64
            self.ip(f"h{number}", "address", "add", f"{address}/{length}", "dev", "eth0", *["nodad"] * (length == 64))
        self.ip(f"h{number}", "link", "set", "eth0", "up")

    def remove(self) -> list[str]:
        for path in NETNS.glob(f"{self.tag}-*"):
            netns.remove(str(path))
        shutil.rmtree(BPFFS / self.tag, ignore_errors=True)
        return [str(path) for folder in (NETNS, BPFFS) for path in folder.glob(f"{self.tag}*")]

    # What there is

    def space(self, name: str) -> str:
        """Path of the namespace of a host or a workload."""
        return str(NETNS / f"{self.tag}-{name}")

    def underlay(self, number: int) -> list[str]:
        return [f"10.98.0.{number}", f"fd98::{number}"]

    def address(self, workload: str, version: int = 4) -> str:
        name, number = workload[0], workload[1:]
        last = {"a": 10, "b": 11}[name]
        return f"10.47.{number}.{last}" if version == 4 else f"fd47:{number}::{last}"

    def workload(self, name: str, number: int, **spec: Any) -> str:
        own = {"node": f"h{number}", "netns": self.space(f"{name}{number}")}
        fixed = {"addresses": [self.address(f"{name}{number}", version) for version in (4, 6)]}
        return document("Workload", f"{name}{number}", {**own, **fixed, **spec}, {"app": name})

    def config(self, number: int) -> Config:
        folder = self.directory / f"h{number}"
        return make(
            f"h{number}",
            self.tree,
            state_directory=folder / "state",
            run_directory=folder / "run",
            pin_root=BPFFS / self.tag / f"h{number}",
        )

    # What is done

    def converge(self) -> None:
        commit = self.commit()
        for number in self.numbers:
            with self.host(number) as host:
                host.converge(commit)
                assert not host.plan(commit), host.plan(commit).render()

    @contextmanager
    def host(self, number: int) -> Iterator[Host]:
        with netns.inside(self.space(f"h{number}")), Host.open(self.config(number)) as opened:
            yield opened

    def mac(self, name: str, device: str) -> str:
        with netns.inside(self.space(name)), Netlink() as netlink:
            found = link_messages.by_name(netlink, device)
        assert found is not None
        return found.mac

    def set(self, name: str, sysctl: str, value: str) -> None:
        with netns.inside(self.space(name)):
            Path("/proc/sys", sysctl).write_text(value)

    def ip(self, name: str, *arguments: str, check: bool = True) -> str:
        command = ["ip", "-n", Path(self.space(name)).name, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, f"{arguments}: {done.stderr}"
        return done.stdout + done.stderr

    def write(self, path: str, text: str) -> None:
        (self.tree / path).parent.mkdir(parents=True, exist_ok=True)
        (self.tree / path).write_text(text)

    def git(self, *arguments: str) -> str:
        environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
        command = ["git", *_AUTHOR, "-C", str(self.tree), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout.strip()

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", f"test {next(_numbers)}")
        return self.git("rev-parse", "HEAD")


@contextmanager
def made_hosts(directory: Path, count: int = 2, **settings: Any) -> Iterator[Hosts]:
    """Hosts at their first commit; they must have left nothing when the block ends."""
    hosts = Hosts(directory, count)
    try:
        hosts.make(**settings)
        hosts.converge()
        yield hosts
    finally:
        left = hosts.remove()
    assert left == []
