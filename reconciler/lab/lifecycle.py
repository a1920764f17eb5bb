"""Making a lab and removing it: every thing is noted in the registry, then made; and removed, then forgotten.

    up(name, repository, say)     again on a lab that is up: what the commit has and the lab lacks is added
    down(lab, say)                again, or after a crash in the middle of either: the rest is removed

`say` takes a line for people for each step.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import yaml

from reconciler.config import PIN_ROOT, RUN_ROOT, Config, make
from reconciler.errors import UsageError
from reconciler.host.health_netns import health_netns
from reconciler.kernel import netns
from reconciler.lab import etcd
from reconciler.lab.convergence import wait_for_commit, wait_for_socket
from reconciler.lab.policy_repository import Followed, clear_socket, set_socket
from reconciler.lab.processes import inside_any, running, start_daemon, stop
from reconciler.lab.registry import Lab, find, lab_lock, labs, remove_if_empty
from reconciler.lab.topology import Host, Topology, clashes, topology
from reconciler.lab.underlay import add_addresses, make_host, make_namespace, make_underlay

Say = Callable[[str], None]


def up(name: str, followed: Followed, say: Say) -> Lab:
    """The lab, converged. If it cannot be made whole, nothing of it is left.

    Raises UsageError for a clash with another lab or host, KernelError, and what the daemons report.
    """
    with lab_lock():
        found = find(name)
        lab = found or Lab(name, str(followed.repository), followed.ref)
        if lab.repository != str(followed.repository):
            raise UsageError(
                f"lab {name} is up for {lab.repository}", remedy=f"plumb lab down --name {name}, or another --name"
            )
        if found and not found.ready:  # somebody was killed while making or removing it
            _remove(found)
            lab = Lab(name, str(followed.repository), followed.ref)
        snapshot = followed.load()
        planned = topology(lab, snapshot)
        _refuse_clashes(lab, planned)
        try:
            _make(lab, planned, say)
            wait_for_commit({node: configuration(lab, node) for node in lab.hosts}, snapshot.commit)
        except BaseException:
            if not lab.ready:
                say("cannot be made whole, removing it")
                _remove(lab)
            raise
        lab.ready = True
        lab.save()
    return lab


def down(lab: Lab, say: Say) -> None:
    """Nothing of it is left: processes, namespaces, pins, files."""
    with lab_lock():
        say(f"removing lab {lab.name}: {len(lab.hosts)} hosts, {len(lab.namespaces)} namespaces")
        _remove(lab)


def configuration(lab: Lab, node: str) -> Config:
    """A node's own: all that it keeps lies in its run directory and below its pin root."""
    run = RUN_ROOT / node
    return make(
        node,
        Path(lab.repository),
        ref=lab.ref,
        state_directory=run / "state",
        run_directory=run,
        pin_root=PIN_ROOT / node,
        path=run / "config.yaml",
    )


def _refuse_clashes(lab: Lab, planned: Topology) -> None:
    found = clashes(planned, [other for other in labs() if other.name != lab.name])
    for host in planned.hosts:
        for directory in (RUN_ROOT / host.node, PIN_ROOT / host.node):
            if directory.exists() and str(directory) not in lab.directories:
                found.append(f"{directory} is there already: this machine has a node {host.node}")
        if Path(host.namespace).exists() and host.namespace not in lab.namespaces:
            found.append(f"{host.namespace} is there already")
    if found:
        raise UsageError("\n".join(found), remedy="take the other down, or use other names")


def _make(lab: Lab, planned: Topology, say: Say) -> None:
    if planned.underlay not in lab.namespaces:
        lab.note(lab.namespaces, planned.underlay)
        make_underlay(planned.underlay)
    _make_etcd(lab, planned, say)
    for workload, path in planned.workloads.items():
        lab.workloads[workload] = path
        if not Path(path).exists():
            lab.note(lab.namespaces, path)
            make_namespace(path)
    for host in planned.hosts:
        if host.node not in lab.hosts:
            say(f"host {host.node}: {host.addresses[0]}, {host.addresses[1]}")
            _make_host(lab, planned.underlay, host)
    lab.save()
    for node, namespace in lab.hosts.items():
        _start(configuration(lab, node), namespace)
    if not lab.socket_set:
        lab.socket_set = True
        lab.save()
        set_socket(Path(lab.repository), configuration(lab, min(lab.hosts)).socket)


def _make_etcd(lab: Lab, planned: Topology, say: Say) -> None:
    endpoints = [server.client for server in planned.etcd]
    if lab.etcd and lab.etcd != endpoints:
        raise UsageError(
            f"the etcd of lab {lab.name} is at {', '.join(lab.etcd)}, the commit has another store",
            remedy=f"take the lab down, and up again: plumb lab down --name {lab.name}",
        )
    if endpoints and not lab.etcd:
        say(f"etcd: {', '.join(endpoints)}")
        lab.etcd = endpoints
        lab.note(lab.directories, str(etcd.directory(lab.name)))
        add_addresses(planned.underlay, [server.address for server in planned.etcd])
    etcd.start_servers(etcd.directory(lab.name), planned.underlay, planned.etcd)


def _make_host(lab: Lab, underlay: str, host: Host) -> None:
    lab.hosts[host.node] = host.namespace
    lab.addresses[host.node] = [str(address) for address in host.addresses]
    config = configuration(lab, host.node)
    lab.directories += [str(config.run_directory), str(config.pin_root)]
    lab.note(lab.namespaces, host.namespace)
    make_host(underlay, host)
    config.run_directory.mkdir(mode=0o755, parents=True)
    config.path.write_text(_document(config))


def _document(config: Config) -> str:
    names = ("node", "repository", "ref", "state_directory", "run_directory", "pin_root")
    return yaml.safe_dump({name: str(getattr(config, name)) for name in names}, sort_keys=False)


def _start(config: Config, namespace: str) -> None:
    if running(config.run_directory) is None:
        process = start_daemon(config, namespace)
        wait_for_socket(config, process)


def _remove(lab: Lab) -> None:
    """In the order in which nothing comes back: processes first."""
    lab.ready = False
    lab.save()
    daemons = [running(RUN_ROOT / node) for node in lab.hosts]
    stop(pid for pid in daemons if pid is not None)
    stop(etcd.pids(etcd.directory(lab.name)), patience_s=0)  # what it would write at its end goes as well
    stop(inside_any(lab.namespaces))
    if lab.socket_set:
        clear_socket(Path(lab.repository))
    for path in lab.directories:
        if Path(path).exists():
            shutil.rmtree(path)
    for path in (*lab.namespaces, *(health_netns(PIN_ROOT / node) for node in lab.hosts)):
        netns.remove(path)
    remove_if_empty([PIN_ROOT])
    lab.forget()
