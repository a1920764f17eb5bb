"""What of a lab is up: its hosts with what their daemons say, and where its workloads are."""

from __future__ import annotations

from typing import Any

from reconciler.daemon.client import Client
from reconciler.errors import PlumbError
from reconciler.lab.lifecycle import configuration
from reconciler.lab.registry import Lab


def overview(lab: Lab) -> dict[str, Any]:
    """JSON-ready: the lab, its hosts and its workloads."""
    hosts = [_host(lab, node) for node in sorted(lab.hosts)]
    return {
        "name": lab.name,
        "repository": lab.repository,
        "ref": lab.ref,
        "ready": lab.ready,
        "hosts": hosts,
        "workloads": [_workload(name, path, hosts) for name, path in sorted(lab.workloads.items())],
    }


def _host(lab: Lab, node: str) -> dict[str, Any]:
    """`state` is what the daemon says, or `no daemon`."""
    client = Client(configuration(lab, node).socket)
    try:
        status, endpoints = client.get("/v1/status"), client.get("/v1/endpoints")
    except PlumbError as error:
        status, endpoints = {"state": "no daemon", "last_error": str(error)}, []
    return {
        "node": node,
        "namespace": lab.hosts[node],
        "addresses": lab.addresses[node],
        "state": status["state"],
        "commit": status.get("commit") or "",
        "error": status.get("last_error") or "",
        "endpoints": {one["workload"]: one["addresses"] for one in endpoints},
    }


def _workload(name: str, path: str, hosts: list[dict[str, Any]]) -> dict[str, Any]:
    """Without a node where no host of the lab knows it (yet)."""
    host = next((host for host in hosts if name in host["endpoints"]), None)
    return {
        "workload": name,
        "node": host["node"] if host else None,
        "namespace": path,
        "addresses": host["endpoints"][name] if host else [],
    }
