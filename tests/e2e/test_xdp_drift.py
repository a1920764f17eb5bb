"""A program at XDP and who is denied, under the eyes of the daemon: what somebody takes away is put back, and named."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from reconciler.bpf import programs, syscalls
from reconciler.bpf.syscalls import held
from reconciler.kernel.bpf_maps import PinnedMaps
from tests.e2e.daemon_host import NAMESPACE, DaemonHost, cluster, document, made_host, node, until

pytestmark = pytest.mark.root
MODES = {"native": "xdp_native", "generic": "xdp_generic", "auto": "xdp"}
DENIED = ["203.0.113.0/24", "198.51.100.7", "2001:db8:bad::/48"]


@pytest.fixture(scope="module", params=MODES)
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonHost]:
    with made_host(tmp_path_factory.mktemp("xdp"), "web", started=False) as made:
        made.ip("link", "add", "eth0", "type", "veth", "peer", "name", "wire0")
        made.ip("link", "set", "eth0", "up")
        made.write("cluster.yaml", cluster(xdp={"mode": request.param}))
        made.write("base.yaml", NAMESPACE + node(devices=["eth0"]))
        made.write("prefilter.yaml", document("Prefilter", "bad", {"deny": DENIED}))
        commit = made.commit()
        made.start()
        made.wait_for(commit)
        yield made


def pin(host: DaemonHost) -> str:
    (found,) = (path for path in (host.config.pin_root / "links").iterdir() if path.name.startswith("eth0-xdp"))
    return str(found)


def is_whole(host: DaemonHost) -> bool:
    rows = host.client.get("/v1/tables/attachments")
    early = [row["row"]["digest"] for row in rows if row["key"]["ifname"] == "eth0" and "xdp" in row["key"]["hook"]]
    return len(early) == 1 and all(early) and len(host.client.get("/v1/tables/prefilter")) == len(DENIED)


def test_rows_say_where_they_come_from(host: DaemonHost) -> None:
    shown = {row["key"]: (row["row"], row["origin"]["path"]) for row in host.client.get("/v1/tables/prefilter")}
    assert shown == {cidr: ({}, "prefilter.yaml") for cidr in DENIED}
    assert "203.0.113.0/24" in host.plumb("map", "show", "prefilter").stdout


@pytest.mark.parametrize("how", ["pin", "link"])
def test_a_program_that_somebody_takes_off_is_put_back(host: DaemonHost, how: str) -> None:
    host.settle()
    path = pin(host)
    if how == "pin":
        os.unlink(path)
    else:
        with held(syscalls.get(path)) as link:
            programs.detach(link)
    until(lambda: os.path.exists(path) and is_whole(host), "the program that was taken off")
    with held(syscalls.get(path)) as link:
        assert programs.link_info(link).ifindex
    assert host.drift(table="attachments")["repaired_ms"] is not None


@pytest.mark.parametrize("name", ["prefilter4", "prefilter6"])
def test_a_row_that_somebody_deletes_is_put_back_and_the_deleter_named(host: DaemonHost, name: str) -> None:
    host.settle()
    map_ = PinnedMaps(host.config.pin_root).open(name)
    keys, _ = map_.read()
    map_.delete(keys[:1])
    until(lambda: len(map_.read()[0]) == len(keys), "the row that was deleted")
    assert host.drift(table="prefilter", what="deleted")["by"]["pid"] == os.getpid()


def test_a_row_that_somebody_adds_is_taken_away(host: DaemonHost) -> None:
    host.settle()
    map_ = PinnedMaps(host.config.pin_root).open("prefilter4")
    keys, values = map_.read()
    alien = keys[:1].copy()
    alien["prefixlen"] = 30
    map_.update(alien, values[:1])
    until(lambda: len(map_.read()[0]) == len(keys), "the row that was added")
