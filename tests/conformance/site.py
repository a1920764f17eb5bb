"""A host in a namespace of its own with workloads in theirs, which becomes what a set of manifests says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from reconciler import config
from reconciler.bpf import bpffs
from reconciler.host import Host
from reconciler.kernel import netns

EVENTS = 3  # enum event_mask: drops and verdicts
NODE = "alpha"
OUTSIDE = IPv4Address("203.0.113.10")
_ROUTER = "203.0.113.1"
_GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")

Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class Pod:
    namespace: str
    name: str
    address: IPv4Address


@dataclass(frozen=True)
class Site:
    """`places`: address -> path of the namespace that has it, the one outside included."""

    host: Host
    namespace: str
    places: Mapping[IPv4Address, str]
    tree: Path
    pods: tuple[Pod, ...]
    network: IPv4Network

    def become(self, present: Mapping[Pod, Manifest], spaces: Mapping[str, Any], policies: Iterable[Any]) -> None:
        """`present`: pod -> its `labels` and `ports`; the others are there all the same, without any."""
        manifests: list[Any] = [
            _manifest("plumbline/v1", "Cluster", "conformance", spec={"policy": {"allowLocalhost": "policy"}}),
            _manifest("plumbline/v1", "Node", NODE, spec={"cidrs": [str(self.network)]}),
        ]
        manifests += [_manifest("v1", "Namespace", name, labels=own) for name, own in spaces.items()]
        manifests += [_workload(pod, present.get(pod, {}), self.places[pod.address]) for pod in self.pods]
        text = "".join(f"---\n{json.dumps(one)}\n" for one in (*manifests, *policies))
        (self.tree / "all.yaml").write_text(text)
        _git(self.tree, "add", "all.yaml")
        _git(self.tree, "commit", "-q", "--allow-empty", "-m", "step")
        with netns.inside(self.namespace):
            self.host.converge("main")
            self.host.listen_for(EVENTS)


@contextmanager
def site(folder: Path, pods: Iterable[Pod], network: IPv4Network) -> Iterator[Site]:
    """Everything is gone in the end. Namespaces are `pt-cf...`."""
    listed = tuple(pods)
    mark = f"pt-cf{os.getpid()}"
    places = {pod.address: f"/run/netns/{mark}-{number}" for number, pod in enumerate(listed)}
    places[OUTSIDE] = f"/run/netns/{mark}-outside"
    home, pins = f"/run/netns/{mark}-host", bpffs.MOUNT_POINT / f"{mark}-host"
    with ExitStack() as stack:
        for path in (home, *places.values()):
            netns.create(path)
            stack.callback(netns.remove, path)
        _connect_outside(home, places[OUTSIDE])
        tree = folder / "tree"
        tree.mkdir()
        _git(tree, "init", "-q", "-b", "main")
        stack.callback(shutil.rmtree, pins, ignore_errors=True)
        folders = {"state_directory": folder / "state", "run_directory": folder / "run", "pin_root": pins}
        (folder / "run").mkdir()
        with Host.open(config.make(NODE, tree, **folders)) as host:
            yield Site(host, home, places, tree, listed, network)


def _connect_outside(home: str, outside: str) -> None:
    """By a link that is none of ours, as any other network that the host routes to."""
    with netns.inside(home):
        _ip(f"link add out type veth peer name eth0 netns {Path(outside).name}")
        _ip(f"address add {_ROUTER}/24 dev out")
        _ip("link set out up")
        _ip("link set lo up")
    with netns.inside(outside):
        _ip(f"address add {OUTSIDE}/24 dev eth0")
        _ip("link set eth0 up")
        _ip(f"route add default via {_ROUTER}")


def _ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


def _git(tree: Path, *arguments: str) -> None:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}
    subprocess.run([*_GIT, *arguments], cwd=tree, env=environment, check=True)


def _manifest(version: str, kind: str, name: str, **more: Any) -> Manifest:
    metadata = {"name": name, **({"labels": more.pop("labels")} if "labels" in more else {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **more}


def _workload(pod: Pod, what: Manifest, path: str) -> Manifest:
    return {
        "apiVersion": "plumbline/v1",
        "kind": "Workload",
        "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": what.get("labels", {})},
        "spec": {"node": NODE, "netns": path, "addresses": [str(pod.address)], "ports": what.get("ports", [])},
    }
